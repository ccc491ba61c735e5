package nftables

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
)

// fam is what differs between the families.
type fam struct {
	id           net.Family
	proto        byte
	words        uint32 // registers that an address takes
	saddr, daddr uint32 // offsets in the network header
	loopback     netip.Prefix
}

var (
	ipv4     = fam{4, unix.NFPROTO_IPV4, 1, 12, 16, netip.MustParsePrefix("127.0.0.0/8")}
	ipv6     = fam{6, unix.NFPROTO_IPV6, 4, 8, 24, netip.MustParsePrefix("::1/128")}
	families = []fam{ipv4, ipv6}
)

func famOf(a netip.Addr) fam {
	if a.Is4() {
		return ipv4
	}
	return ipv6
}

// name is that of a set or chain of the family.
func (f fam) name(base string) string { return base + strconv.Itoa(int(f.id)) }

func (f fam) of(ps []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range ps {
		if famOf(p.Addr()).id == f.id {
			out = append(out, p)
		}
	}
	return out
}

type exprs = []expr.Any

func join(parts ...exprs) exprs {
	var out exprs
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// reg is the i-th of the kernel's sixteen registers of 32 bits; what is
// concatenated lies in consecutive ones.
func reg(i uint32) uint32 { return unix.NFT_REG32_00 + i }

// only matches packets of the family.
func (f fam) only() exprs {
	return exprs{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg(0), Data: []byte{f.proto}},
	}
}

// load puts the address at an offset of the network header into registers.
func (f fam) load(offset, i uint32) exprs {
	return exprs{&expr.Payload{DestRegister: reg(i), Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4 * f.words}}
}

func loadProto(i uint32) exprs {
	return exprs{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg(i)}}
}

func loadPort(i uint32) exprs {
	return exprs{&expr.Payload{DestRegister: reg(i), Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}}
}

// called puts destination, protocol and port into registers.
func (f fam) called(i uint32) exprs {
	return join(f.load(f.daddr, i), loadProto(i+f.words), loadPort(i+f.words+1))
}

// in matches packets whose address at offset is in p, out those whose is not.
func (f fam) in(offset uint32, p netip.Prefix) exprs  { return f.cmp(offset, p, expr.CmpOpEq) }
func (f fam) out(offset uint32, p netip.Prefix) exprs { return f.cmp(offset, p, expr.CmpOpNeq) }

func (f fam) cmp(offset uint32, p netip.Prefix, op expr.CmpOp) exprs {
	n := int(4 * f.words)
	mask := make([]byte, n)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return join(f.load(offset, 0), exprs{
		&expr.Bitwise{SourceRegister: reg(0), DestRegister: reg(0), Len: uint32(n), Mask: mask, Xor: make([]byte, n)},
		&expr.Cmp{Op: op, Register: reg(0), Data: p.Masked().Addr().AsSlice()},
	})
}

// has matches packets whose key from register i is in the set.
func has(i uint32, set string) exprs {
	return exprs{&expr.Lookup{SourceRegister: reg(i), SetName: set}}
}

// look puts what the map has for the key from register i into registers from to.
func look(i, to uint32, set string) exprs {
	return exprs{&expr.Lookup{SourceRegister: reg(i), DestRegister: reg(to), IsDestRegSet: true, SetName: set}}
}

// lead takes a number from the map numbers for the key from register 0, which ends
// before register end, and goes where the verdict map says for it. The number is
// carried in the packet's priority.
func lead(end uint32, numbers, verdicts string) exprs {
	return join(look(0, end, numbers), setPriority(end), priority(0), exprs{
		&expr.Lookup{SourceRegister: reg(0), DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: verdicts},
	})
}

// dnat sends the packet to the address and port from register i.
func (f fam) dnat(i uint32) exprs {
	return exprs{&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.proto), RegAddrMin: reg(i), RegProtoMin: reg(i + f.words)}}
}

// random puts one of n numbers from first on into a register.
func random(i uint32, n int, first uint32) exprs {
	return exprs{&expr.Numgen{Register: reg(i), Modulus: uint32(n), Type: unix.NFT_NG_RANDOM, Offset: first}}
}

// toNode matches packets to an address of the node itself, fromNode those from
// one.
func toNode() exprs   { return fib(&expr.Fib{Register: reg(0), FlagDADDR: true, ResultADDRTYPE: true}) }
func fromNode() exprs { return fib(&expr.Fib{Register: reg(0), FlagSADDR: true, ResultADDRTYPE: true}) }

func fib(f *expr.Fib) exprs {
	return exprs{f, &expr.Cmp{Op: expr.CmpOpEq, Register: reg(0), Data: native(unix.RTN_LOCAL)}}
}

// ctBit matches packets of whose connection a bit is set.
func ctBit(key expr.CtKey, bit uint32) exprs {
	return exprs{
		&expr.Ct{Key: key, Register: reg(0)},
		&expr.Bitwise{SourceRegister: reg(0), DestRegister: reg(0), Len: 4, Mask: native(bit), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg(0), Data: native(0)},
	}
}

func isNew() exprs { return ctBit(expr.CtKeySTATE, expr.CtStateBitNEW) }

// translated matches connections whose destination was translated.
func translated() exprs { return ctBit(expr.CtKeySTATUS, 1<<5) }

func marked(bit uint32) exprs {
	return exprs{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg(0)},
		&expr.Bitwise{SourceRegister: reg(0), DestRegister: reg(0), Len: 4, Mask: native(bit), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg(0), Data: native(bit)},
	}
}

// setMark keeps the bits of keep and sets those of set.
func setMark(keep, set uint32) exprs {
	return exprs{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg(0)},
		&expr.Bitwise{SourceRegister: reg(0), DestRegister: reg(0), Len: 4, Mask: native(keep &^ set), Xor: native(set)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg(0)},
	}
}

// priority puts the packet's priority into a register, setPriority the reverse.
func priority(i uint32) exprs {
	return exprs{&expr.Meta{Key: expr.MetaKeyPRIORITY, Register: reg(i)}}
}

func setPriority(i uint32) exprs {
	return exprs{&expr.Meta{Key: expr.MetaKeyPRIORITY, SourceRegister: true, Register: reg(i)}}
}

// hasBit matches packets in whose priority a bit is set.
func hasBit(bit uint32) exprs {
	return join(priority(0), exprs{
		&expr.Bitwise{SourceRegister: reg(0), DestRegister: reg(0), Len: 4, Mask: native(bit), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg(0), Data: native(bit)},
	})
}

// hasName matches packets whose priority names an endpoint: numbers of chains, which
// were there before, have other bits.
func hasName() exprs { return hasBit(named) }

// clearPriority takes out the number or name that was left there.
func clearPriority() exprs {
	return join(hasBit(ours), exprs{&expr.Immediate{Register: reg(0), Data: native(0)}}, setPriority(0))
}

// masquerade takes ports at random: two connections that begin at once on two
// processors would else be given the same one, and one of them lose a packet.
func masquerade() exprs { return exprs{&expr.Masq{FullyRandom: true}} }

func jump(chain string) exprs {
	return exprs{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

func goTo(chain string) exprs {
	return exprs{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}

func back() exprs { return exprs{&expr.Verdict{Kind: expr.VerdictReturn}} }
func drop() exprs { return exprs{&expr.Verdict{Kind: expr.VerdictDrop}} }

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
