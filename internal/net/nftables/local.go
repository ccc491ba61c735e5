package nftables

import (
	"bytes"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// fromPods are the ways in which a packet of the family is told to come from a pod:
// by its address, or by the interface through which it came in.
func (b *Backend) fromPods(f fam) []exprs {
	var out []exprs
	for _, p := range f.of(b.cfg.Pods) {
		out = append(out, join(f.only(), f.in(f.saddr, p)))
	}
	for _, name := range b.cfg.PodInterfaces {
		out = append(out, join(f.only(), cameIn(name)))
	}
	return out
}

// cameIn matches packets by the interface through which they came in; a name that
// ends in + stands for all that begin so.
func cameIn(name string) exprs {
	begin, many := strings.CutSuffix(name, "+")
	value := []byte(begin)
	if !many {
		value = append(value, bytes.Repeat([]byte{0}, unix.IFNAMSIZ-len(value))...)
	}
	return exprs{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg(0), Data: value},
	}
}

// invalid drops what passes through and belongs to no connection that the kernel
// knows: an answer that it does not translate back would make the caller's kernel
// reset a connection that is sound.
func invalid() chain {
	return chain{"forward", nftables.ChainHookForward, nftables.ChainTypeFilter, 0, []rule{
		{"belongs to no connection: nobody would translate it back", join(ctBit(expr.CtKeySTATE, expr.CtStateBitINVALID), drop())},
	}}
}
