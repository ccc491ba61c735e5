package nftables

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
	"nodeagent/internal/net/hosttest"
	"nodeagent/internal/net/nettest"
)

// packet is the first one of a connection on its way through the rules.
type packet struct {
	src, dst   netip.Addr
	proto      net.Proto
	port       uint16
	iif        string
	mark, prio uint32
	dnat, masq bool
	gone       string // refused or dropped
}

// clients are who is remembered: by the map and its key, a name.
type clients map[slot]string

// way is a packet in the midst of rules.
type way struct {
	packet
	chance float64
	hooks  []chain // to come
	stack  []frame
	regs   [64]byte
	set    [16]bool // which registers were written in this rule: the kernel lets no others be read
	knows  clients
}

// frame is a place in a chain.
type frame struct {
	rules      []rule
	rule, expr int
}

// tracer walks expressions as the kernel does. Where dice are thrown it goes all ways.
// It panics at what it does not know: nothing may pass unseen.
type tracer struct {
	*paper
	sets map[string]*nftables.Set
	then func(*way)
}

// trace tells how likely each end is, and who is remembered behind each.
func (p *paper) trace(from netip.Addr, to net.Address, knows clients) (map[nettest.End]float64, map[nettest.End]clients) {
	tr := &tracer{paper: p, sets: p.b.sets}
	ends, left := map[nettest.End]float64{}, map[nettest.End]clients{}
	first, node := nftables.ChainHookPrerouting, slices.Contains(hosttest.NodeAddr, from)
	if node {
		first = nftables.ChainHookOutput
	}
	w := way{packet: packet{src: from, dst: to.IP, proto: to.Proto, port: to.Port, iif: "v-outside"}, chance: 1, knows: knows}
	if slices.ContainsFunc(hosttest.Pods, func(x netip.Prefix) bool { return x.Contains(from) }) && !node {
		w.iif = "v-here1"
	}
	end := func(w *way) {
		e := nettest.End{What: w.gone, Masked: w.masq}
		if w.dnat && w.gone == "" {
			e.What, e.To = "served", netip.AddrPortFrom(w.dst, w.port)
		}
		if w.prio&ours != 0 && w.gone == "" {
			panic(fmt.Sprintf("a number of ours, %#x, is left in the packet", w.prio))
		}
		ends[e] += w.chance
		left[e] = w.knows
	}
	tr.hook(w, first, func(w *way) {
		if w.gone != "" || !w.dnat && slices.Contains(hosttest.NodeAddr, w.dst) {
			end(w)
			return
		}
		through := *w
		if node {
			tr.hook(through, nftables.ChainHookPostrouting, end)
			return
		}
		tr.hook(through, nftables.ChainHookForward, func(w *way) { tr.hook(*w, nftables.ChainHookPostrouting, end) })
	})
	return ends, left
}

// hook sends a packet through the chains of a hook.
func (tr *tracer) hook(w way, at *nftables.ChainHook, then func(*way)) {
	w.hooks = tr.hooks[*at]
	was := tr.then
	tr.then = then
	tr.run(w)
	tr.then = was
}

func (tr *tracer) run(w way) {
	w.stack = slices.Clone(w.stack)
	for {
		if len(w.stack) == 0 {
			if len(w.hooks) == 0 || w.gone != "" {
				tr.then(&w)
				return
			}
			w.stack = []frame{{rules: w.hooks[0].rules}}
			w.hooks = w.hooks[1:]
		}
		if len(w.stack) > 16 {
			panic("the kernel would refuse so many calls")
		}
		top := &w.stack[len(w.stack)-1]
		switch {
		case top.rule == len(top.rules):
			w.stack = w.stack[:len(w.stack)-1]
		case top.expr == len(top.rules[top.rule].exprs):
			top.rule, top.expr = top.rule+1, 0
		default:
			if top.expr == 0 {
				w.set = [16]bool{}
			}
			e := top.rules[top.rule].exprs[top.expr]
			top.expr++
			if n, ok := e.(*expr.Numgen); ok {
				tr.draw(w, n)
				return
			}
			if !tr.step(&w, e) { // the rule ends here
				top.rule, top.expr = top.rule+1, 0
			}
		}
	}
}

// draw goes as many ways as there are numbers.
func (tr *tracer) draw(w way, n *expr.Numgen) {
	if n.Type != unix.NFT_NG_RANDOM || n.Modulus == 0 {
		panic("that is no die")
	}
	w.chance /= float64(n.Modulus)
	for i := range n.Modulus {
		each := w
		each.put(n.Register, native(n.Offset+i))
		tr.run(each)
	}
}

func (w *way) at(reg uint32) int {
	if reg < unix.NFT_REG32_00 || reg > unix.NFT_REG32_15 {
		panic(fmt.Sprintf("register %d", reg))
	}
	return int(reg - unix.NFT_REG32_00)
}

// put writes to registers, whole ones.
func (w *way) put(reg uint32, b []byte) {
	i := w.at(reg)
	for n := range (len(b) + 3) / 4 {
		clear(w.regs[4*(i+n) : 4*(i+n)+4])
		w.set[i+n] = true
	}
	copy(w.regs[4*i:], b)
}

func (w *way) get(reg uint32, n int) []byte {
	i := w.at(reg)
	if slices.Contains(w.set[i:i+(n+3)/4], false) {
		panic("a register is read that nothing was written to")
	}
	return bytes.Clone(w.regs[4*i : 4*i+n])
}

// step does one expression, and tells whether the rule goes on.
func (tr *tracer) step(w *way, e expr.Any) bool {
	switch e := e.(type) {
	case *expr.Meta:
		w.meta(e)
	case *expr.Payload:
		w.put(e.DestRegister, w.payload(e))
	case *expr.Ct:
		w.put(e.Register, native(w.ct(e)))
	case *expr.Fib:
		w.put(e.Register, native(w.fib(e)))
	case *expr.Bitwise:
		b := w.get(e.SourceRegister, int(e.Len))
		for i := range b {
			b[i] = b[i]&e.Mask[i] ^ e.Xor[i]
		}
		w.put(e.DestRegister, b)
	case *expr.Immediate:
		w.put(e.Register, e.Data)
	case *expr.Cmp:
		return bytes.Equal(w.get(e.Register, len(e.Data)), e.Data) == (e.Op == expr.CmpOpEq)
	case *expr.Lookup:
		return tr.lookup(w, e)
	case *expr.Dynset:
		return tr.remember(w, e)
	default:
		w.target(tr, e)
	}
	return true
}

func (w *way) meta(e *expr.Meta) {
	if e.SourceRegister {
		v := binary.NativeEndian.Uint32(w.get(e.Register, 4))
		switch e.Key {
		case expr.MetaKeyMARK:
			w.mark = v
		case expr.MetaKeyPRIORITY:
			w.prio = v
		default:
			panic(fmt.Sprintf("sets meta %d", e.Key))
		}
		return
	}
	switch e.Key {
	case expr.MetaKeyNFPROTO:
		w.put(e.Register, []byte{famOf(w.dst).proto})
	case expr.MetaKeyL4PROTO:
		w.put(e.Register, []byte{byte(w.proto)})
	case expr.MetaKeyMARK:
		w.put(e.Register, native(w.mark))
	case expr.MetaKeyPRIORITY:
		w.put(e.Register, native(w.prio))
	case expr.MetaKeyIIFNAME:
		w.put(e.Register, append([]byte(w.iif), make([]byte, unix.IFNAMSIZ-len(w.iif))...))
	default:
		panic(fmt.Sprintf("meta %d", e.Key))
	}
}

func (w *way) payload(e *expr.Payload) []byte {
	f := famOf(w.dst)
	switch {
	case e.Base == expr.PayloadBaseTransportHeader && e.Offset == 2 && e.Len == 2:
		return binary.BigEndian.AppendUint16(nil, w.port)
	case e.Base == expr.PayloadBaseNetworkHeader && e.Offset == f.saddr && e.Len == 4*f.words:
		return w.src.AsSlice()
	case e.Base == expr.PayloadBaseNetworkHeader && e.Offset == f.daddr && e.Len == 4*f.words:
		return w.dst.AsSlice()
	}
	panic(fmt.Sprintf("reads %+v of a packet", e))
}

func (w *way) ct(e *expr.Ct) uint32 {
	switch {
	case e.Key == expr.CtKeySTATE:
		return expr.CtStateBitNEW
	case e.Key == expr.CtKeySTATUS && w.dnat:
		return 1 << 5
	case e.Key == expr.CtKeySTATUS:
		return 0
	}
	panic(fmt.Sprintf("ct %d", e.Key))
}

func (w *way) fib(e *expr.Fib) uint32 {
	a := w.dst
	if e.FlagSADDR {
		a = w.src
	}
	if slices.Contains(hosttest.NodeAddr, a) || a.IsLoopback() {
		return unix.RTN_LOCAL
	}
	return unix.RTN_UNICAST
}

// lookup finds an element, by ranges where it has such.
func (tr *tracer) lookup(w *way, e *expr.Lookup) bool {
	s := tr.sets[e.SetName]
	key := string(w.get(e.SourceRegister, int(s.KeyType.Bytes)))
	if s.Dynamic {
		name, ok := w.knows[slot{set: s.Name, key: key}]
		if ok {
			w.put(e.DestRegister, []byte(name))
		}
		return ok
	}
	c, ok := tr.els[slot{set: s.Name, key: key}]
	if s.Interval {
		for at := range tr.els { // all parts but the last are the same at both ends
			ok = ok || at.set == s.Name && at.key <= key && key <= at.end
		}
	}
	if !ok || !e.IsDestRegSet {
		return ok
	}
	if e.DestRegister != unix.NFT_REG_VERDICT {
		w.put(e.DestRegister, []byte(c.value))
		return true
	}
	v := &expr.Verdict{Kind: expr.VerdictGoto, Chain: c.verdict}
	if c.verdict == "drop" {
		v.Kind = expr.VerdictDrop
	}
	w.target(tr, v)
	return true
}

// remember writes to a memory, or takes out of it.
func (tr *tracer) remember(w *way, e *expr.Dynset) bool {
	s := tr.sets[e.SetName]
	at := slot{set: s.Name, key: string(w.get(e.SrcRegKey, int(s.KeyType.Bytes)))}
	w.knows = maps.Clone(w.knows)
	if w.knows == nil {
		w.knows = clients{}
	}
	switch e.Operation {
	case dynsetDelete:
		delete(w.knows, at)
	case unix.NFT_DYNSET_OP_UPDATE:
		if _, there := w.knows[at]; !there { // an update leaves what is remembered as it is
			w.knows[at] = string(w.get(e.SrcRegData, 4))
		}
	default:
		panic(fmt.Sprintf("dynset %d", e.Operation))
	}
	return true
}

// target ends the rule, the chain, or the packet.
func (w *way) target(tr *tracer, e expr.Any) {
	top := &w.stack[len(w.stack)-1]
	switch e := e.(type) {
	case *expr.NAT:
		f := famOf(w.dst)
		a, _ := netip.AddrFromSlice(w.get(e.RegAddrMin, int(4*f.words)))
		w.dst, w.port, w.dnat = a, binary.BigEndian.Uint16(w.get(e.RegProtoMin, 2)), true
		w.stack = nil
	case *expr.Masq:
		w.masq, w.stack = true, nil
	case *expr.Reject:
		if (e.Type == unix.NFT_REJECT_TCP_RST) != (w.proto == net.TCP) {
			panic("TCP is refused by a reset, and nothing else is")
		}
		w.gone, w.stack = "refused", nil
	case *expr.Verdict:
		switch e.Kind {
		case expr.VerdictDrop:
			w.gone, w.stack = "dropped", nil
		case expr.VerdictReturn:
			w.stack = w.stack[:len(w.stack)-1]
		case expr.VerdictGoto:
			*top = frame{rules: tr.chain(e.Chain)}
		case expr.VerdictJump:
			w.stack = append(w.stack, frame{rules: tr.chain(e.Chain)})
		default:
			panic(fmt.Sprintf("verdict %d", e.Kind))
		}
	default:
		panic(fmt.Sprintf("%T", e))
	}
}

func (tr *tracer) chain(name string) []rule {
	rules, ok := tr.rules[name]
	if !ok {
		panic("no chain " + name)
	}
	return rules
}
