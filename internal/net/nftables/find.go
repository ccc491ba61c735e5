package nftables

import (
	"time"

	"github.com/google/nftables/expr"
)

// The fixed chains that look up what grows with services and clients, without the
// family's digit: by what is in the packet's priority, and into it. nft aborts on a
// rule in which the result of a map is part of the key of another, though the kernel
// takes it; so each has one map.
//
// A packet on its way through gets its priority later; that of others is cleared in
// the chain "unknown".
var (
	finders  = [...]string{address: "to-endpoint", nodeport: "nodeport-to-endpoint"}
	choosers = [...]string{address: "choose", nodeport: "nodeport-choose"}
	recalls  = map[string]string{affinity: "recall", affinityHere: "recall-local"}
	forgets  = map[string]string{affinity: "forget", affinityHere: "forget-local"}
)

// end is the first register of the endpoint; those before have room for every key.
const end = 11

// find are these chains.
func (f fam) find() []chain {
	var out []chain
	for b, maps := range [...]struct{ ends, names string }{address: {endpoints, choices}, nodeport: {nodePortEnds, nodePortName}} {
		key, last := f.called(0), f.words+2
		if by(b) == nodeport {
			key, last = join(loadProto(0), loadPort(1)), 2
		}
		key = join(f.only(), key, priority(last))
		out = append(out,
			chain{name: f.name(finders[b]), rules: []rule{{"the endpoint of this number or name", join(key, look(0, end, f.name(maps.ends)), f.dnat(end))}}},
			chain{name: f.name(choosers[b]), rules: []rule{{"the name of the endpoint of this number", join(key, look(0, end, f.name(maps.names)), setPriority(end))}}})
	}
	for _, memory := range []string{affinity, affinityHere} {
		out = append(out,
			chain{name: f.name(recalls[memory]), rules: []rule{{"", join(f.only(), f.client(), look(0, end, f.name(memory)), setPriority(end))}}},
			chain{name: f.name(forgets[memory]), rules: []rule{{"", f.note(memory, dynsetDelete, 0)}}})
	}
	return out
}

// client is the key of what is remembered: who calls what.
func (f fam) client() exprs { return join(f.load(f.saddr, 0), f.called(f.words)) }

// dynsetDelete is NFT_DYNSET_OP_DELETE.
const dynsetDelete = 2

// note writes to a memory the name that is in the packet's priority.
func (f fam) note(memory string, op uint32, keep time.Duration) exprs {
	return join(f.only(), f.client(), priority(end), exprs{&expr.Dynset{SrcRegKey: reg(0), SrcRegData: reg(end), SetName: f.name(memory), Operation: op, Timeout: keep}})
}
