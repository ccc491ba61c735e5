package podnet

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The table, as nft would print it (one family of two; the other is alike):
//
//	map hostports4    { type inet_proto . inet_service : ipv4_addr . inet_service; }
//	map hostports4_ip { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
//	chain prerouting  { type nat hook prerouting priority dstnat;
//	    fib daddr type local jump hostports }
//	chain output      { type nat hook output priority dstnat;
//	    ip daddr 127.0.0.0/8 ip saddr != 127.0.0.0/8 dnat ip to ip daddr . meta l4proto . th dport map @hostports4_ip
//	    fib daddr type local jump hostports }
//	chain hostports   {
//	    ip daddr 127.0.0.0/8 return
//	    ip saddr <pods> jump hairpin
//	    dnat ip to ip daddr . meta l4proto . th dport map @hostports4_ip
//	    dnat ip to meta l4proto . th dport map @hostports4 }
//	chain hairpin     {
//	    ip daddr . meta l4proto . th dport @hostports4_ip meta mark set mark | 0x2000
//	    meta l4proto . th dport @hostports4 meta mark set mark | 0x2000 }
//	chain postrouting { type nat hook postrouting priority srcnat;
//	    meta mark & 0x2000 == 0x2000 meta mark set mark & ~0x2000 masquerade
//	    ip saddr <pods> jump leaving }
//	chain leaving     {
//	    ip daddr <pods, non-masquerade, multicast> return
//	    masquerade fully-random }
//
// "fib daddr type local" keeps traffic through the node and between pods on the
// same port untouched (CVE-2019-9946, CVE-2025-67499). 127/8 and ::1 are left out of
// it: who sends to them from elsewhere must not come to a port that is published
// there. The node itself does, but for callers from a loopback address, whose packets
// the kernel would have to route.

// fixedRule is one rule of the fixed part.
type fixedRule struct {
	chain string
	exprs []expr.Any
}

func (s ruleSet) table() *nftables.Table {
	return &nftables.Table{Name: s.name, Family: nftables.TableFamilyINet}
}

func (s ruleSet) chains() []*nftables.Chain {
	t, accept := s.table(), nftables.ChainPolicyAccept
	base := func(name string, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
		return &nftables.Chain{Name: name, Table: t, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: prio, Policy: &accept}
	}
	return []*nftables.Chain{
		{Name: "hostports", Table: t}, {Name: "hairpin", Table: t}, {Name: "leaving", Table: t},
		base("prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest),
		base("output", nftables.ChainHookOutput, nftables.ChainPriorityNATDest),
		base("postrouting", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource),
	}
}

func (s ruleSet) maps() []*nftables.Set {
	t := s.table()
	one := func(name string, addr nftables.SetDatatype, withHost bool) *nftables.Set {
		key := []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService}
		if withHost {
			key = append([]nftables.SetDatatype{addr}, key...)
		}
		return &nftables.Set{
			Table: t, Name: name, IsMap: true,
			KeyType:  nftables.MustConcatSetType(key...),
			DataType: nftables.MustConcatSetType(addr, nftables.TypeInetService),
		}
	}
	return []*nftables.Set{
		one("hostports4", nftables.TypeIPAddr, false), one("hostports4_ip", nftables.TypeIPAddr, true),
		one("hostports6", nftables.TypeIP6Addr, false), one("hostports6_ip", nftables.TypeIP6Addr, true),
	}
}

func mapOf(b binding) string {
	name := "hostports6"
	if b.Pod.Is4() {
		name = "hostports4"
	}
	if b.HostIP.IsValid() {
		name += "_ip"
	}
	return name
}

func mapKey(b binding) string {
	var k []byte
	if b.HostIP.IsValid() {
		k = b.HostIP.AsSlice()
	}
	k = append(k, b.Proto, 0, 0, 0)
	return string(append(k, byte(b.HostPort>>8), byte(b.HostPort), 0, 0))
}

func mapValue(b binding) string {
	return string(append(b.Pod.AsSlice(), byte(b.Container>>8), byte(b.Container), 0, 0))
}

func (s ruleSet) rules() []fixedRule {
	var out []fixedRule
	add := func(chain string, parts ...[]expr.Any) {
		r := fixedRule{chain: chain}
		for _, p := range parts {
			r.exprs = append(r.exprs, p...)
		}
		out = append(out, r)
	}
	add("prerouting", toLocal(), jump("hostports"))
	for _, is4 := range []bool{true, false} {
		f := family(is4)
		add("output", f.only(), f.in(f.daddr, f.loopback), f.notIn(f.saddr, f.loopback), f.lookup(true), f.dnat())
	}
	add("output", toLocal(), jump("hostports"))
	add("postrouting", hasMark(s.hairMark), setMark(^s.hairMark, 0), masquerade())
	for _, is4 := range []bool{true, false} {
		f := family(is4)
		add("hostports", f.only(), f.in(f.daddr, f.loopback), verdict(expr.VerdictReturn))
		for _, p := range of(s.pods, is4) {
			add("hostports", f.only(), f.in(f.saddr, p), jump("hairpin"))
			add("postrouting", f.only(), f.in(f.saddr, p), jump("leaving"))
		}
		for _, withHost := range []bool{true, false} {
			add("hostports", f.only(), f.lookup(withHost), f.dnat())
			add("hairpin", f.only(), f.lookup(withHost), setMark(^uint32(0), s.hairMark))
		}
		for _, p := range of(s.noMasq, is4) {
			add("leaving", f.only(), f.in(f.daddr, p), verdict(expr.VerdictReturn))
		}
	}
	add("leaving", masquerade())
	return out
}

// The kernel has sixteen 32-bit registers; a concatenation lies in consecutive
// ones. The key of a lookup starts at the first, its value at the eighth.
const (
	reg0    = unix.NFT_REG32_00
	regData = unix.NFT_REG32_00 + 8
)

// fam is what differs between the families.
type fam struct {
	proto        byte
	name         string // prefix of the maps
	addrLen      uint32
	saddr, daddr uint32 // offsets in the network header
	loopback     netip.Prefix
}

func family(is4 bool) fam {
	if is4 {
		return fam{unix.NFPROTO_IPV4, "hostports4", 4, 12, 16, netip.MustParsePrefix("127.0.0.0/8")}
	}
	return fam{unix.NFPROTO_IPV6, "hostports6", 16, 8, 24, netip.MustParsePrefix("::1/128")}
}

// only matches packets of the family.
func (f fam) only() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg0},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: []byte{f.proto}},
	}
}

// in matches packets whose address at offset is in p.
func (f fam) in(offset uint32, p netip.Prefix) []expr.Any {
	mask := ipNet(p).Mask
	return []expr.Any{
		f.load(offset, reg0),
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: f.addrLen, Mask: mask, Xor: make([]byte, f.addrLen)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: p.Masked().Addr().AsSlice()},
	}
}

// notIn matches packets whose address at offset is not in p.
func (f fam) notIn(offset uint32, p netip.Prefix) []expr.Any {
	out := f.in(offset, p)
	out[len(out)-1].(*expr.Cmp).Op = expr.CmpOpNeq
	return out
}

func (f fam) load(offset, reg uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.addrLen}
}

// lookup loads the pod's address and port for a packet's destination, or ends
// the rule.
func (f fam) lookup(withHost bool) []expr.Any {
	var out []expr.Any
	reg, name := uint32(reg0), f.name
	if withHost {
		out = append(out, f.load(f.daddr, reg))
		reg, name = reg+f.addrLen/4, name+"_ip"
	}
	return append(out,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Payload{DestRegister: reg + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: reg0, DestRegister: regData, IsDestRegSet: true, SetName: name},
	)
}

// dnat sends the packet where lookup said.
func (f fam) dnat() []expr.Any {
	return []expr.Any{&expr.NAT{
		Type: expr.NATTypeDestNAT, Family: uint32(f.proto),
		RegAddrMin: regData, RegProtoMin: regData + f.addrLen/4,
	}}
}

// toLocal matches packets to an address of the node itself.
func toLocal() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg0, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: native(unix.RTN_LOCAL)},
	}
}

func hasMark(bit uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg0},
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: 4, Mask: native(bit), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: native(bit)},
	}
}

// setMark keeps the bits of keep and sets those of set.
func setMark(keep, set uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg0},
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: 4, Mask: native(keep &^ set), Xor: native(set)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg0},
	}
}

// masquerade takes ports at random: two connections that begin at once on two
// processors would else be given the same one, and one of them lose a packet.
func masquerade() []expr.Any { return []expr.Any{&expr.Masq{FullyRandom: true}} }

func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

func verdict(k expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: k}} }

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
