package nftables

import (
	"cmp"
	"reflect"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// alike compares rules with what they shall be.
func alike(have, want []rule) bool {
	if len(have) != len(want) {
		return false
	}
	for i, w := range want {
		if have[i].text != w.text || len(have[i].exprs) != len(w.exprs) {
			return false
		}
		for j, x := range w.exprs {
			if !reflect.DeepEqual(told(have[i].exprs[j]), told(x)) {
				return false
			}
		}
	}
	return true
}

// told is of an expression what every kernel tells, as it tells it: some add to
// what they were given, and each has names of its own for registers. What is left
// out here has no effect in our rules, or cannot be changed by itself.
func told(e expr.Any) expr.Any {
	switch e := e.(type) {
	case *expr.Meta:
		return &expr.Meta{Key: e.Key, SourceRegister: e.SourceRegister, Register: asTold(e.Register)}
	case *expr.Payload:
		return &expr.Payload{
			OperationType: e.OperationType, DestRegister: asTold(e.DestRegister), SourceRegister: asTold(e.SourceRegister),
			Base: e.Base, Offset: e.Offset, Len: e.Len,
		}
	case *expr.Ct:
		return &expr.Ct{Key: e.Key, SourceRegister: e.SourceRegister, Register: asTold(e.Register)}
	case *expr.Fib:
		x := *e
		x.Register = asTold(e.Register)
		return &x
	case *expr.Bitwise:
		return &expr.Bitwise{SourceRegister: asTold(e.SourceRegister), DestRegister: asTold(e.DestRegister), Len: e.Len, Mask: e.Mask, Xor: e.Xor}
	case *expr.Cmp:
		return &expr.Cmp{Op: e.Op, Register: asTold(e.Register), Data: e.Data}
	case *expr.Immediate:
		return &expr.Immediate{Register: asTold(e.Register), Data: e.Data}
	case *expr.Numgen:
		return &expr.Numgen{Register: asTold(e.Register), Modulus: e.Modulus, Type: e.Type, Offset: e.Offset}
	}
	return toldOfTargets(e)
}

// toldOfTargets is told of what looks up, leads on and ends.
func toldOfTargets(e expr.Any) expr.Any {
	switch e := e.(type) {
	case *expr.Lookup:
		return &expr.Lookup{
			SourceRegister: asTold(e.SourceRegister), DestRegister: asTold(e.DestRegister), IsDestRegSet: e.IsDestRegSet,
			SetName: e.SetName, Invert: e.Invert,
		}
	case *expr.Dynset:
		return &expr.Dynset{
			SrcRegKey: asTold(e.SrcRegKey), SrcRegData: asTold(e.SrcRegData), SetName: e.SetName, Operation: e.Operation,
			Timeout: e.Timeout, Invert: e.Invert,
		}
	case *expr.NAT: // the last of a range of one is told, too; and that there is a port, by some
		return &expr.NAT{
			Type: e.Type, Family: e.Family, Random: e.Random, FullyRandom: e.FullyRandom, Persistent: e.Persistent, Prefix: e.Prefix,
			RegAddrMin: asTold(e.RegAddrMin), RegAddrMax: asTold(cmp.Or(e.RegAddrMax, e.RegAddrMin)),
			RegProtoMin: asTold(e.RegProtoMin), RegProtoMax: asTold(cmp.Or(e.RegProtoMax, e.RegProtoMin)),
		}
	case *expr.Masq:
		x := *e
		x.RegProtoMin, x.RegProtoMax = asTold(e.RegProtoMin), asTold(e.RegProtoMax)
		return &x
	case *expr.Verdict:
		return &expr.Verdict{Kind: e.Kind, Chain: e.Chain}
	}
	return e
}

// asTold is the kernel's name of a register: every fourth of the small ones is
// where a large one begins, and told as that.
func asTold(r uint32) uint32 {
	const small, words = unix.NFT_REG32_00, 4
	if r >= small && (r-small)%words == 0 {
		return unix.NFT_REG_1 + (r-small)/words
	}
	return r
}
