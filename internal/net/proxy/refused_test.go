package proxy

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nodeagent/internal/net"
	"nodeagent/internal/net/hosttest"
	"nodeagent/internal/net/nftables"
)

// unlikely is nftables with one service, in the table that it gets, of whose source
// ranges one is in another: no object makes such a table, and no kernel takes it.
type unlikely struct {
	*nftables.Backend
	name    string
	refused int
	inForce chan struct{}
}

// TakeOver is what is done last of the turn that has our rules in force.
func (u *unlikely) TakeOver(context.Context) ([]string, error) {
	close(u.inForce)
	return nil, nil
}

func (u *unlikely) spoil(t *net.Table) *net.Table {
	out := t.Clone()
	for a, e := range out.Entries {
		if e.Service.Name == u.name {
			x := *e
			x.Ranged, x.Ranges = true, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/16")}
			out.Entries[a] = &x
		}
	}
	return out
}

func (u *unlikely) note(err error) error {
	if net.IsRefused(err) {
		u.refused++
	}
	return err
}

func (u *unlikely) Sync(ctx context.Context, t *net.Table) (net.Report, error) {
	r, err := u.Backend.Sync(ctx, u.spoil(t))
	return r, u.note(err)
}

func (u *unlikely) Apply(ctx context.Context, t *net.Table, d *net.Diff) error {
	spoilt, x := u.spoil(t), *d
	x.Entries = nil
	for _, c := range d.Entries {
		if c.New != nil {
			c.New = spoilt.Entries[c.New.Addr]
		}
		x.Entries = append(x.Entries, c)
	}
	return u.note(u.Backend.Apply(ctx, spoilt, &x))
}

// TestKernelRefuses: where the kernel itself refuses the first transaction for the sake of
// one service, each other one answers when the first turn is over, and that one's
// address is nobody's.
func TestKernelRefuses(t *testing.T) {
	hosts := hosttest.Wire(t)
	hosts["there1"].Serve(t, 8080)
	const services, bad = 40, 17
	var all []metav1.Object
	for i := 1; i <= services; i++ {
		s := hosttest.ServiceOf(i, func(s *corev1.Service) { s.UID = "uid" })
		all = append(all, s)
		for _, x := range hosttest.Ends(s.Name, hosts, "there1") {
			all = append(all, x)
		}
	}
	b, err := nftables.New(nftables.Config{Pods: hosttest.Pods})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	t.Cleanup(func() {
		if err := b.Remove(hosttest.Ctx(t)); err != nil {
			t.Error(err)
		}
	})
	kernel := &unlikely{Backend: b, name: fmt.Sprintf("s%d", bad), inForce: make(chan struct{})}
	told := &events{}
	p := serve(t, "nftables", kernel, told, append(all, aNode())...)
	select {
	case <-kernel.inForce:
	case <-hosttest.Ctx(t).Done():
		t.Fatal("the rules never were in force")
	}
	if n := failures(p); n != 0 {
		t.Errorf("%d turns went wrong", n)
	}
	if kernel.refused < 2 {
		t.Errorf("the kernel refused %d times: the test shows nothing", kernel.refused)
	}
	for i := 1; i <= services; i++ {
		for _, network := range []string{"tcp", "udp"} {
			to, wait := netip.MustParseAddrPort(fmt.Sprintf("10.96.0.%d:80", i)), hosttest.Soon
			if i == bad {
				wait = hosttest.Never
			}
			got := hosts["outside"].Call(network, to, wait)
			if served := strings.HasPrefix(got, "there1 "); served != (i != bad) {
				t.Errorf("%s %s: %q", network, to, got)
			}
		}
	}
	if said := told.all(); len(said) != 1 || !strings.Contains(said[0], kernel.name+" uid ServiceRulesRefused") {
		t.Errorf("the events are %q", said)
	}
}

func failures(p *Proxy) int {
	p.state.mu.Lock()
	defer p.state.mu.Unlock()
	return p.state.figures.failures
}
