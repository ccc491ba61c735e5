package nftables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
)

// Held reads what the kernel holds for each address, whoever wrote it. It needs no Sync
// before, and changes nothing. None: there is no table of ours.
func (b *Backend) Held(ctx context.Context) ([]net.Held, error) {
	c, err := b.open(ctx)
	if err != nil {
		return nil, b.end(err)
	}
	there, err := b.listSets()
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	} else if err != nil {
		return nil, b.end(err)
	}
	els := elements{}
	for _, f := range families {
		for _, name := range []string{services, nodePorts, endpoints, nodePortEnds, unserved, unservedNP} {
			if _, ok := there[f.name(name)]; !ok {
				continue
			}
			if err := b.readSet(c, b.sets[f.name(name)], els); err != nil {
				return nil, b.end(fmt.Errorf("read set %s: %w", f.name(name), err))
			}
		}
	}
	return heldOf(els), nil
}

// ForwardDrops names the chains of anybody that drop what passes through the node and no
// rule of theirs accepts.
func (b *Backend) ForwardDrops(ctx context.Context) ([]string, error) {
	c, err := b.open(ctx)
	if err != nil {
		return nil, b.end(err)
	}
	all, err := c.ListChains()
	if err != nil {
		return nil, b.end(err)
	}
	var out []string
	for _, ch := range all {
		if ch.Hooknum != nil && *ch.Hooknum == *nftables.ChainHookForward && ch.Table.Family != nftables.TableFamilyBridge &&
			ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop {
			out = append(out, "chain "+ch.Name+" of table "+familyNames[ch.Table.Family]+" "+ch.Table.Name)
		}
	}
	return out, nil
}

var familyNames = map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet"}

// heldOf puts elements together by the address that they are about.
func heldOf(els elements) []net.Held {
	out := map[string]*net.Held{}
	at := func(f fam, key string) *net.Held {
		a := addressOf(f, key).String()
		if out[a] == nil {
			out[a] = &net.Held{Address: a}
		}
		return out[a]
	}
	for s, c := range els {
		f := families[slices.IndexFunc(families, func(f fam) bool { return strings.HasSuffix(s.set, f.name("")) })]
		switch s.set {
		case f.name(services), f.name(nodePorts):
			at(f, s.key).Service = c.comment
		case f.name(unserved), f.name(unservedNP):
			h := at(f, s.key)
			h.Service = c.comment
			if i := int(indexOf(c.value)); i > 0 && i <= len(f.reasons()) {
				h.Closed = strings.TrimSuffix(f.reasons()[i-1], f.name(""))
			}
		default: // an address and a number, or a name, which leads to one of the same endpoints
			if n := len(s.key) - 4; n >= 8 && len(c.value) == int(4*f.words)+4 {
				h, ip := at(f, s.key[:n]), len(c.value)-4
				a, _ := netip.AddrFromSlice([]byte(c.value[:ip]))
				h.Endpoints = append(h.Endpoints, netip.AddrPortFrom(a, binary.BigEndian.Uint16([]byte(c.value[ip:]))))
			}
		}
	}
	return net.Tidy(out)
}

// addressOf reads what addressPort and protoPort write.
func addressOf(f fam, key string) net.Address {
	out := net.Address{IP: netip.IPv4Unspecified()}
	if f.words == 4 {
		out.IP = netip.IPv6Unspecified()
	}
	if n := int(4 * f.words); len(key) == n+8 {
		out.IP, _ = netip.AddrFromSlice([]byte(key[:n]))
		key = key[n:]
	}
	if len(key) == 8 {
		out.Proto, out.Port = net.Proto(key[0]), binary.BigEndian.Uint16([]byte(key[4:]))
	}
	return out
}
