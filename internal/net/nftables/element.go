package nftables

import (
	"hash/fnv"
	"net/netip"
	"strings"
	"unicode"

	"nodeagent/internal/net"
)

// slot is the place of an element: a set and a key in the kernel's form.
type slot struct{ set, key, end string }

// content is what is there: the value of a map, or the verdict of a verdict map
// ("drop" or a chain's name), and a comment.
type content struct{ value, verdict, comment string }

type elements map[slot]content

// maxComment is what nft itself takes for a comment.
const maxComment = 120

// comment makes text that is safe in the output of tools: names come from
// whoever may make Services.
func comment(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '"' || r == '\\' || r > unicode.MaxASCII || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > maxComment {
		s = s[:maxComment-3] + "..."
	}
	return s
}

// The kernel pads each part of a concatenation to four bytes.

func port(p uint16) string { return string([]byte{byte(p >> 8), byte(p), 0, 0}) }

func protoPort(a net.Address) string {
	return string([]byte{byte(a.Proto), 0, 0, 0}) + port(a.Port)
}

func addressPort(a net.Address) string { return string(a.IP.AsSlice()) + protoPort(a) }

func endpoint(a netip.AddrPort) string { return string(a.Addr().AsSlice()) + port(a.Port()) }

func mark(n uint32) string { return string(native(n)) }

// nameOf is what affinity remembers of an endpoint: a hash. Should two of one service
// have the same name, both numbers lead to the smaller one.
func nameOf(a netip.AddrPort, first uint32) uint32 {
	h := fnv.New32a()
	h.Write([]byte(endpoint(a)))
	return h.Sum32()&^(localFirst|named) | first | named
}

// shape is how the kernel serves an entry: the order of its endpoints.
type shape struct{ cluster, local []netip.AddrPort }

// put adds the elements of an entry. The endpoints are kept once for every
// address of the service.
func (els elements) put(e *net.Entry, s shape, ns numbers) {
	f := famOf(e.Addr.IP)
	key, v := addressPort(e.Addr), e.ForClusterIP()
	to := pools{f.name(endpoints), f.name(choices), key, e.Affinity > 0}
	switch v {
	case net.ToCluster:
		els.putPool(to, s.cluster, anyFirst)
	case net.ToLocal:
		els.putPool(to, s.local, localFirst)
	}
	els.serve(place{f, f.name(services), f.name(unserved), key, e.Name() + " cluster IP"}, v, pickInside(e), "", ns)
	for _, x := range e.Fronts {
		els.putFront(f, e, x, s, ns)
	}
}

// pools is where the endpoints of one address are kept.
type pools struct {
	ends, names, key string
	sticky           bool
}

func (els elements) putPool(to pools, order []netip.AddrPort, first uint32) {
	for i, a := range order {
		n := mark(first + uint32(i))
		els[slot{set: to.ends, key: to.key + n}] = content{value: endpoint(a)}
		if !to.sticky {
			continue
		}
		name := mark(nameOf(a, first))
		els[slot{set: to.names, key: to.key + n}] = content{value: name}
		at := slot{set: to.ends, key: to.key + name}
		if had, ok := els[at]; !ok || endpoint(a) < had.value {
			els[at] = content{value: endpoint(a)}
		}
	}
}

func (els elements) putFront(f fam, e *net.Entry, x net.Front, s shape, ns numbers) {
	key, open, closed, by, gate := addressPort(x.Address), services, unserved, address, ""
	to := pools{f.name(endpoints), f.name(choices), key, e.Affinity > 0}
	if x.Kind == net.NodePort {
		key, open, closed, by = protoPort(x.Address), nodePorts, unservedNP, nodeport
		to = pools{f.name(nodePortEnds), f.name(nodePortName), key, e.Affinity > 0}
	}
	if e.ForInside() == net.ToCluster {
		els.putPool(to, s.cluster, anyFirst)
	}
	if e.ForOutside() == net.ToLocal {
		els.putPool(to, s.local, localFirst)
	}
	if x.Kind == net.Balancer && e.Ranged {
		gate = f.name(rangesOnly)
		for _, p := range e.Ranges {
			els[slot{f.name(sourceRanges), key + string(p.Masked().Addr().AsSlice()), key + string(last(p).AsSlice())}] = content{comment: comment(e.Name())}
		}
	}
	els.serve(place{f, f.name(open), f.name(closed), key, e.Name() + " " + x.Kind.String()}, e.ForOutside(), pickOutside(e, by), gate, ns)
}

// place is an address in the maps that have those that are served and not served.
type place struct {
	fam
	open, closed, key, name string
}

// serve leads an address to its chain, and closes it to whom it does not serve.
func (els elements) serve(at place, v net.Verdict, p pick, gate string, ns numbers) {
	name := comment(at.name)
	if v != net.Refuse && (v != net.Drop || p.how == mixed) {
		els[slot{set: at.open, key: at.key}] = content{value: number(ns[p]), comment: name}
	}
	switch {
	case v == net.Refuse && gate != "":
		gate = at.fam.name(rangesRefuse)
	case v == net.Refuse:
		gate = "refuse"
	case v == net.Drop && gate != "":
		gate = at.fam.name(rangesInside)
	case v == net.Drop && p.how == mixed:
		gate = "inside-only"
	case v == net.Drop:
		gate = "drop"
	}
	if gate != "" {
		els[slot{set: at.closed, key: at.key}] = content{value: at.reason(gate), comment: name}
	}
}

// pickInside is the chain of the cluster IP, pickOutside that of other addresses.
func pickInside(e *net.Entry) pick {
	p := pick{v6: e.Addr.IP.Is6(), n: len(e.Cluster), keep: e.Affinity}
	if e.LocalInside {
		p.how, p.n = local, len(e.Local)
	}
	return p
}

func pickOutside(e *net.Entry, b by) pick {
	p := pick{v6: e.Addr.IP.Is6(), by: b, how: masked, n: len(e.Cluster), keep: e.Affinity}
	if e.LocalOutside {
		p.how, p.local = mixed, len(e.Local)
	}
	return p
}

// picksOf lists the chains that an entry needs, with those to which they lead.
func picksOf(e *net.Entry) []pick {
	var out []pick
	if v := e.ForClusterIP(); v == net.ToCluster || v == net.ToLocal {
		out = append(out, pickInside(e).all()...)
	}
	for _, x := range e.Fronts {
		if e.ForInside() == net.Refuse {
			break
		}
		p := pickOutside(e, address)
		if x.Kind == net.NodePort {
			p = pickOutside(e, nodeport)
		}
		out = append(out, p.all()...)
	}
	return out
}

// last is the highest address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// putAddress adds an element of a set of addresses: a cluster IP, or an
// endpoint of this node.
func (els elements) putAddress(set string, a netip.Addr) {
	key := string(a.AsSlice())
	if set == hairpin {
		key += key
	}
	els[slot{set: famOf(a).name(set), key: key}] = content{}
}

// putRange adds a range of which cluster IPs are drawn, for all protocols.
func (els elements) putRange(p netip.Prefix) {
	first, end := p.Masked().Addr().AsSlice(), last(p).AsSlice()
	els[slot{famOf(p.Addr()).name(serviceRange), string(first) + "\x00\x00\x00\x00", string(end) + "\xff\x00\x00\x00"}] = content{}
}
