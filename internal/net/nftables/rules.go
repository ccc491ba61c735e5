package nftables

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// rule is one rule of ours; its text is shown by "nft list".
type rule struct {
	text  string
	exprs exprs
}

// chain is one chain of the fixed part.
type chain struct {
	name  string
	hook  *nftables.ChainHook
	kind  nftables.ChainType
	prio  int32
	rules []rule
}

func prerouting(name string, kind nftables.ChainType, prio int32, rules ...rule) chain {
	return chain{name, nftables.ChainHookPrerouting, kind, prio, rules}
}

func output(name string, kind nftables.ChainType, prio int32, rules ...rule) chain {
	return chain{name, nftables.ChainHookOutput, kind, prio, rules}
}

// fixed is the part that is the same however many services there are. A chain
// comes after those that it names. The order of a new connection is guard,
// services, unknown, masquerade; packets of connections that are there already
// pass the first and third with one comparison and do not see the others.
func (b *Backend) fixed() []chain {
	const nat, filter = nftables.ChainTypeNAT, nftables.ChainTypeFilter
	guard := rule{"new connections: is the address closed, or to this caller?", join(isNew(), jump("guard"))}
	serve := rule{"", jump(services)}
	unknown := rule{"still to a cluster IP: no service has this port, or this address", join(isNew(), jump("unknown"))}
	out := b.plain()
	if !b.cfg.KeepInvalid {
		out = append(out, invalid())
	}
	return append(out,
		prerouting("guard-prerouting", filter, -110, guard),
		output("guard-output", filter, -110, guard),
		prerouting("nat-prerouting", nat, -100, serve),
		output("nat-output", nat, -100, serve),
		prerouting("unknown-prerouting", filter, -90, unknown),
		output("unknown-output", filter, -90, unknown),
		chain{"nat-postrouting", nftables.ChainHookPostrouting, nat, 100, b.postrouting()},
	)
}

// plain are the chains without a hook.
func (b *Backend) plain() []chain {
	refuse := chain{name: "refuse", rules: []rule{
		{"", join(exprs{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(0)}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg(0), Data: []byte{unix.IPPROTO_TCP}}},
			exprs{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}})},
		{"", exprs{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}}},
	}}
	inside := chain{name: "inside-only"}
	outside := chain{name: "mark-outsiders"}
	guard, serve, unknown := chain{name: "guard"}, chain{name: services}, chain{name: "unknown"}
	unknown.rules = []rule{{"what our maps left there", clearPriority()}}
	for _, f := range families {
		for _, pod := range b.fromPods(f) {
			inside.rules = append(inside.rules, rule{"from a pod", join(pod, back())})
			outside.rules = append(outside.rules, rule{"from a pod", join(pod, back())})
		}
	}
	if b.cfg.MasqueradeAll {
		outside.rules = nil
	}
	inside.rules = append(inside.rules,
		rule{"from the node itself", join(fromNode(), back())},
		rule{"from outside, and there is no endpoint on this node", drop()})
	outside.rules = append(outside.rules, rule{"what comes back must come through this node", setMark(^uint32(0), b.mark)})
	out := []chain{{name: "about", rules: []rule{{"nodeagent, layout " + b.layout(), back()}}}, refuse, inside, outside}
	for _, f := range families {
		out = append(append(out, f.ranges()...), f.find()...)
		ips, np := f.name(clusterIPs), b.atNodePort(f)
		guard.rules = append(guard.rules, rule{"", join(f.only(), f.called(0), lead(f.words+2, f.name(unserved), f.name(reasons)))})
		if len(b.fromPods(f)) > 0 || b.cfg.MasqueradeAll {
			serve.rules = append(serve.rules, rule{"", join(f.only(), f.load(f.daddr, 0), has(0, ips), jump(outside.name))})
		}
		serve.rules = append(serve.rules, rule{"", join(f.only(), f.called(0), lead(f.words+2, f.name(services), f.name(picks)))})
		for _, at := range np {
			guard.rules = append(guard.rules, rule{"", join(at, loadProto(0), loadPort(1), lead(2, f.name(unservedNP), f.name(reasons)))})
			serve.rules = append(serve.rules, rule{"", join(at, loadProto(0), loadPort(1), lead(2, f.name(nodePorts), f.name(picks)))})
		}
		unknown.rules = append(unknown.rules,
			rule{"", join(f.only(), f.load(f.daddr, 0), has(0, ips), goTo(refuse.name))},
			rule{"", join(f.only(), f.load(f.daddr, 0), loadProto(f.words), has(0, f.name(serviceRange)), goTo(refuse.name))})
	}
	return append(out, guard, serve, unknown)
}

// atNodePort matches packets to addresses at which node ports are served.
func (b *Backend) atNodePort(f fam) []exprs {
	base := join(f.only(), f.out(f.daddr, f.loopback), toNode())
	at := f.of(b.cfg.NodePorts)
	if len(b.cfg.NodePorts) == 0 {
		return []exprs{base}
	}
	var out []exprs
	for _, p := range at {
		out = append(out, join(f.only(), f.in(f.daddr, p), f.out(f.daddr, f.loopback), toNode()))
	}
	return out
}

// The chains of source ranges, without the family's digit.
const (
	rangesOnly   = "source-ranges"
	rangesRefuse = "source-ranges-refuse"
	rangesInside = "source-ranges-inside-only"
)

// ranges let callers in by the service's source ranges, for an address that is
// served, that nobody serves, and that is served inside only.
func (f fam) ranges() []chain {
	from := join(f.only(), f.called(0), f.load(f.saddr, f.words+2), has(0, f.name(sourceRanges)))
	one := func(name string, then exprs) chain {
		return chain{name: f.name(name), rules: []rule{{"", join(from, then)}, {"not from a source range of the service", drop()}}}
	}
	return []chain{one(rangesOnly, back()), one(rangesRefuse, goTo("refuse")), one(rangesInside, goTo("inside-only"))}
}

func (b *Backend) postrouting() []rule {
	out := []rule{{"marked for it", join(marked(b.mark), setMark(^b.mark, 0), masquerade())}}
	for _, f := range families {
		out = append(out, rule{"an endpoint that reached itself", join(f.only(), translated(), f.load(f.saddr, 0), f.load(f.daddr, f.words), has(0, f.name(hairpin)), masquerade())})
	}
	return out
}
