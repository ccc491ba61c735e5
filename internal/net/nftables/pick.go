package nftables

import (
	"fmt"
	"time"

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
	plain      how = iota // policy Cluster, and the caller is seen
	masked                // policy Cluster, and the caller is masqueraded
	local                 // policy Local
	mixed                 // plain for pods, masked for the node, local for others
	keeper                // picks nothing: it remembers whom the packet's priority names, and leads there
	keeperHere            // the same for endpoints of policy Local
)

// Endpoints are found by what packets carry in their priority, of which the first
// bit says that it is ours: by numbers, from anyFirst on and those of policy Local
// from localFirst on, and for affinity by names, since numbers change.
const (
	ours       = 0x80000000
	here       = 0x40000000
	named      = 0x20000000
	anyFirst   = ours
	localFirst = ours | here
)

func (p pick) fam() fam {
	if p.v6 {
		return ipv6
	}
	return ipv4
}

// pickNames are the chains' names, by by and how.
var pickNames = [...][6]string{
	{"cluster", "external", "local", "mixed", "remember", "remember-local"},
	{"nodeport-inside", "nodeport", "nodeport-local", "nodeport-mixed", "nodeport-remember", "nodeport-remember-local"},
}

func (p pick) name() string {
	s := p.fam().name(pickNames[p.by][p.how])
	if !p.keeps() {
		s += fmt.Sprintf("-%d", p.n)
	}
	if p.how == mixed {
		s += fmt.Sprintf("-%d", p.local)
	}
	if p.keep > 0 {
		s += fmt.Sprintf("-%ds", p.keep)
	}
	return s
}

// keeps tells the chains that remember from those that pick. Nothing leads to one by
// a number.
func (p pick) keeps() bool { return p.how >= keeper }

// parts are the chains to which a chain leads, but for the fixed ones.
func (p pick) parts() []pick {
	if p.how != mixed {
		if p.keep == 0 || p.keeps() {
			return nil
		}
		return []pick{p.keeper()}
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

// keeper is the chain that remembers for one that picks.
func (p pick) keeper() pick {
	to := pick{v6: p.v6, by: p.by, how: keeper, keep: p.keep}
	if p.how == local {
		to.how = keeperHere
	}
	return to
}

// all is a chain with those to which it leads, and so on.
func (p pick) all() []pick {
	out := []pick{p}
	for _, to := range p.parts() {
		out = append(out, to.all()...)
	}
	return out
}

func (b *Backend) rulesOf(p pick) []rule {
	switch p.how {
	case mixed:
		return b.mixedRules(p)
	case keeper, keeperHere:
		return p.remember()
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

// rules pick: a number is drawn, or with affinity in five steps: who is remembered,
// and whose endpoint is still there, goes there again; who is not is forgotten, since
// an update leaves what is remembered as it is; a number is drawn, which becomes a
// name; that is remembered, if there is room; and gone to.
//
// Nothing is looked up here: to let a new chain use a map the kernel walks all of it.
// So maps belong to the fixed chains that find.go has, and number or name are in the
// packet's priority from one to the next.
func (p pick) rules() []rule {
	first, memory := uint32(anyFirst), affinity
	if p.how == local {
		first, memory = localFirst, affinityHere
	}
	f, draw := p.fam(), join(random(0, p.n, first), setPriority(0))
	if p.keep == 0 {
		return []rule{{"", join(draw, goTo(f.name(finders[p.by])))}}
	}
	then := p.keeper().name()
	return []rule{
		{"is the client remembered?", jump(f.name(recalls[memory]))},
		{"it is: to its endpoint, if that is still there", join(hasName(), jump(then))},
		{"else its endpoint is forgotten", jump(f.name(forgets[memory]))},
		{"another one is chosen", join(draw, jump(f.name(choosers[p.by])))},
		{"and remembered, and taken", goTo(then)},
	}
}

// remember are the rules of a chain that remembers. There is one for each time that
// affinity may last, since packets cannot carry that.
func (p pick) remember() []rule {
	f, memory := p.fam(), affinity
	if p.how == keeperHere {
		memory = affinityHere
	}
	return []rule{
		{"if there is room", f.note(memory, unix.NFT_DYNSET_OP_UPDATE, time.Duration(p.keep)*time.Second)},
		{"", goTo(f.name(finders[p.by]))},
	}
}
