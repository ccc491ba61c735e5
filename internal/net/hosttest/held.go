package hosttest

import (
	"context"
	"net/netip"
	"testing"

	"nodeagent/internal/net"
)

// Holder tells what the kernel holds.
type Holder interface {
	Programmer
	Held(context.Context) ([]net.Held, error)
}

// Held programs services of each kind of address, policy and state, and has the backend
// read them back: at each address the kernel has what the table says, and after somebody
// took all of it away nothing.
func Held(t *testing.T, mode string, k Kind) {
	m, model := newMatrix(fakeHosts()), net.NewModel(ThisNode)
	for _, s := range m.services {
		model.SetService(s)
	}
	for _, s := range m.slices {
		model.SetSlice(s)
	}
	model.Take()
	b := k.New(t).(Holder)
	_, err := b.Sync(Ctx(t), model.Table())
	must(t, err)
	held := func() net.Ground {
		all, err := b.Held(Ctx(t))
		must(t, err)
		return net.Ground{Mode: mode, Held: all}
	}
	ground, present := held(), 0
	for _, s := range m.services {
		x := net.ExplainService(model.Facts(net.Key{Namespace: s.Namespace, Name: s.Name}), net.Loop{Mode: mode, Begun: true}, ground)
		for _, a := range x.Addresses {
			if a.Kernel != "present" {
				t.Errorf("%s at %s, inside %s, outside %s, to %v: %s, the kernel has %+v", s.Name, a.Address, a.Inside, a.Outside, a.Endpoints, a.Kernel, a.Held)
				continue
			}
			present++
		}
	}
	t.Logf("%d addresses are as they shall be", present)
	k.Flush(t)
	for _, h := range held().Held {
		t.Errorf("all was taken away, and there still is %+v", h)
	}
}

// fakeHosts are hosts that nobody sends a packet to.
func fakeHosts() map[string]*Host {
	out := map[string]*Host{}
	for i, name := range []string{"outside", "here1", "here2", "here3", "there1", "there2"} {
		b4, b6 := [4]byte{10, 0, byte(i), 9}, [16]byte{0: 0xfd, 1: 0x10, 7: byte(i), 15: 9}
		out[name] = &Host{Name: name, IP4: netip.AddrFrom4(b4), IP6: netip.AddrFrom16(b6)}
	}
	return out
}
