package nftables

import (
	"fmt"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// pick names a chain that picks an endpoint. All services that are alike in
// what it says share it.
type pick struct {
	v6    bool
	by    by
	how   how
	n     int    // endpoints to pick from
	local int    // of mixed: endpoints of policy Local
	keep  uint32 // seconds of affinity
}

// by says under what the endpoints are kept.
type by uint8

const (
	address  by = iota // under the address and port that is called
	nodeport           // under the port alone
)

// how says which endpoints there are for whom, and what they see of the caller.
type how uint8

const (
	plain  how = iota // policy Cluster, and the caller is seen
	masked            // policy Cluster, and the caller is masqueraded
	local             // policy Local
	mixed             // plain for pods, masked for the node, local for others
)

// Endpoints are found by numbers, from 0 on and those of policy Local from
// localFirst on, and for affinity by names: hashes with the top bit set, since
// numbers change.
const (
	localFirst = 0x40000000
	named      = 0x80000000
)

func (p pick) fam() fam {
	if p.v6 {
		return ipv6
	}
	return ipv4
}

// pickNames are the chains' names, by by and how.
var pickNames = [...][4]string{
	{"cluster", "external", "local", "mixed"},
	{"nodeport-inside", "nodeport", "nodeport-local", "nodeport-mixed"},
}

func (p pick) name() string {
	s := fmt.Sprintf("%s-%d", p.fam().name(pickNames[p.by][p.how]), p.n)
	if p.how == mixed {
		s += fmt.Sprintf("-%d", p.local)
	}
	if p.keep > 0 {
		s += fmt.Sprintf("-%ds", p.keep)
	}
	return s
}

// parts are the chains to which a mixed one leads.
func (p pick) parts() []pick {
	if p.how != mixed {
		return nil
	}
	in, node, out := p, p, p
	in.how, in.local = plain, 0
	node.how, node.local = masked, 0
	out.how, out.n, out.local = local, p.local, 0
	if out.n == 0 {
		return []pick{in, node}
	}
	return []pick{in, node, out}
}

func (b *Backend) rulesOf(p pick) []rule {
	switch p.how {
	case mixed:
		return b.mixedRules(p)
	case masked:
		return append([]rule{{"what comes back must come through this node", setMark(^uint32(0), b.mark)}}, p.rules()...)
	}
	return p.rules()
}

func (b *Backend) mixedRules(p pick) []rule {
	f, to := p.fam(), p.parts()
	var out []rule
	for _, pod := range b.fromPods(f) {
		out = append(out, rule{"from a pod: as if it came in anywhere", join(pod, goTo(to[0].name()))})
	}
	out = append(out, rule{"from the node itself", join(f.only(), fromNode(), goTo(to[1].name()))})
	if len(to) > 2 {
		out = append(out, rule{"from outside: endpoints on this node only", goTo(to[2].name())})
	}
	return out
}

// dynsetDelete is NFT_DYNSET_OP_DELETE.
const dynsetDelete = 2

// end is the first register of the endpoint; those before have room for every
// key.
const end = 11

// rules pick, with affinity in five steps: who is remembered, and whose endpoint
// is still there, goes there again; who is not is forgotten, since an update
// leaves what is remembered as it is; is given the name of one; that is
// remembered, if there is room; and gone to.
//
// From one step to the next the name is in the packet's priority: nft aborts on
// a rule in which the result of a map is part of the key of another, though the
// kernel takes it. A packet on its way through gets its priority later; that of
// others is cleared in the chain "unknown".
func (p pick) rules() []rule {
	f, first, memory := p.fam(), uint32(0), affinity
	if p.how == local {
		first, memory = localFirst, affinityHere
	}
	key, last, ends, names := f.called(0), f.words+2, endpoints, choices
	if p.by == nodeport {
		key, last, ends, names = join(loadProto(0), loadPort(1)), 2, nodePortEnds, nodePortName
	}
	number := join(f.only(), key, random(last, p.n, first))
	if p.keep == 0 {
		return []rule{{"", join(number, look(0, end, f.name(ends)), f.dnat(end))}}
	}
	client, name := join(f.load(f.saddr, 0), f.called(f.words)), 2*f.words+2
	recall := join(client, look(0, name, f.name(memory)), setPriority(name))
	note := func(op uint32, keep time.Duration) exprs {
		return join(client, priority(name), exprs{&expr.Dynset{SrcRegKey: reg(0), SrcRegData: reg(name), SetName: f.name(memory), Operation: op, Timeout: keep}})
	}
	remember := note(unix.NFT_DYNSET_OP_UPDATE, time.Duration(p.keep)*time.Second)
	find := join(key, priority(last), look(0, end, f.name(ends)))
	return []rule{
		{"the client's endpoint is remembered and still there", join(f.only(), recall, find, remember, f.dnat(end))},
		{"else its endpoint is forgotten", join(f.only(), note(dynsetDelete, 0))},
		{"another one is chosen", join(number, look(0, last, f.name(names)), setPriority(last))},
		{"and remembered", join(f.only(), remember)},
		{"and taken", join(f.only(), find, f.dnat(end))},
	}
}
