package iptables

import (
	"maps"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/net"
	"nodeagent/internal/net/hosttest"
	. "nodeagent/internal/net/nettest"
	"nodeagent/internal/test/need"
)

// ward is a backend that is told of what others do, and mends it.
type ward struct {
	t       *testing.T
	flavour Flavour
	*Backend
	model *net.Model
	wakes chan struct{}
}

func newWard(t *testing.T, flavour Flavour, services int) *ward {
	m := net.NewModel(thisNode)
	all, endpoints := Many(services, 5)
	for i := range all {
		m.SetService(all[i])
		m.SetSlice(endpoints[i])
	}
	m.Take()
	b := backend(t, Config{Flavour: flavour})
	w := &ward{t, flavour, b, m, hosttest.Watch(t, b)}
	woken(t, w.wakes, "the start")
	_, err := b.Sync(hosttest.Ctx(t), m.Table())
	must(t, err)
	return w
}

// move gives a service other endpoints, which is a change of our own.
func (w *ward) move(i int, last string) {
	w.t.Helper()
	name := w.entry(i).Name()
	name = name[strings.IndexByte(name, '/')+1 : strings.IndexByte(name, ':')]
	w.model.SetSlice(Slice(name+"-x7k2p", name, To("http", corev1.ProtocolTCP, 8080), At("10.128.0.1", ""), At("10.128.0."+last, "")))
	d := w.model.Take()
	must(w.t, w.Apply(hosttest.Ctx(w.t), w.model.Table(), &d))
}

func (w *ward) entry(i int) *net.Entry { return w.model.Table().Sorted()[i] }

// chain is that of the first endpoint of a service, by its number.
func (w *ward) chain(i int) string { return slotOf(w.layouts[0], w.entry(i), 0) }

// mends waits until somebody is told of what was done, and mends it.
func (w *ward) mends(what string) {
	w.t.Helper()
	woken(w.t, w.wakes, what)
	r, err := w.Sync(hosttest.Ctx(w.t), w.model.Table())
	must(w.t, err)
	if r == (net.Report{}) {
		w.t.Errorf("%s: nothing was mended", what)
	}
}

var mendLimit = need.Raced(3 * time.Second)

// TestHealsInTime: what somebody else does is in order again within 3 s of its
// beginning, with 2 000 services.
func TestHealsInTime(t *testing.T) {
	eachFlavour(t, func(t *testing.T, flavour Flavour) {
		w := newWard(t, flavour, 2000)
		whole := sorted(dump(t, flavour))
		run := func(args ...string) { command(t, "iptables", flavour, "", args...) }
		for _, x := range []struct {
			what string
			do   func()
		}{
			{"a rule deleted", func() { run("-t", "nat", "-D", w.chain(700), "2") }},
			{"a rule edited", func() {
				run("-t", "nat", "-R", w.chain(700), "3", "-p", "tcp", "-j", "DNAT", "--to-destination", "10.128.99.99:8080")
			}},
			{"a rule that leads to services deleted", func() { run("-t", "nat", "-D", "NODEAGENT-PICK", "-j", "NODEAGENT-EP0") }},
			{"a jump deleted", func() {
				run("-t", "nat", "-D", "OUTPUT", "-m", "comment", "--comment", "nodeagent: service addresses", "-j", "NODEAGENT-SERVICES")
			}},
			{"rules and chains gone", func() { kind(flavour).Flush(t) }},
		} {
			begun := time.Now()
			x.do()
			w.mends(x.what)
			took := time.Since(begun)
			for sorted(dump(t, flavour)) != whole { // more of it was told meanwhile
				if took > 10*mendLimit {
					t.Fatalf("%s: not mended\n%.3000s", x.what, dump(t, flavour))
				}
				w.mends(x.what)
				took = time.Since(begun)
			}
			t.Logf("%s: mended after %s", x.what, took.Round(time.Millisecond))
			if took > mendLimit {
				t.Errorf("%s: mended after %s, limit %s", x.what, took, mendLimit)
			}
		}
	})
}

// TestEditedAfterUs: a rule that somebody replaced by one of the same length, right
// after or before a change of our own, in the chain that we wrote or in another, is
// mended. Where nobody did anything we stay asleep.
func TestEditedAfterUs(t *testing.T) {
	eachFlavour(t, func(t *testing.T, flavour Flavour) {
		w := newWard(t, flavour, 400)
		edit := func(i int, rule string) {
			command(t, "iptables", flavour, "", "-t", "nat", "-R", w.chain(i), rule, "-p", "tcp", "-j", "DNAT", "--to-destination", "10.128.99.99:8080")
		}
		for _, do := range []struct {
			what string
			do   func()
		}{
			{"the chain that we wrote, after us", func() { w.move(3, "11"); edit(3, "3") }},
			{"another chain, after us", func() { w.move(3, "12"); edit(4, "3") }},
			{"another chain, before us", func() { edit(5, "3"); w.move(3, "13") }},
			{"after us, and then we again", func() { w.move(3, "14"); edit(4, "3"); w.move(6, "14") }},
		} {
			begun := time.Now()
			do.do()
			w.mends(do.what)
			if took := time.Since(begun); took > mendLimit {
				t.Errorf("%s: mended after %s, limit %s", do.what, took, mendLimit)
			}
			if list := dump(t, flavour); strings.Contains(list, "10.128.99.99:") {
				t.Errorf("%s: still there\n%s", do.what, list)
			}
			nothingLeft(t, w.Backend, w.model.Table(), do.what)
			drain(w.wakes)
		}
		// Who has the lock, and what others write elsewhere, is no reason to do anything.
		w.move(7, "15")
		command(t, "iptables", flavour, "", "-t", "nat", "-S", "PREROUTING")
		command(t, "iptables", flavour, "", "-t", "nat", "-N", "FOREIGN")
		command(t, "iptables", flavour, "", "-t", "nat", "-X", "FOREIGN")
		select {
		case <-w.wakes:
			t.Error("what is none of our business woke us")
		case <-time.After(1500 * time.Millisecond):
		}
	})
}

// TestMendsWhatIsNamed: in the nft flavour only the chains in which somebody wrote
// are written again, which their rules' handles tell.
func TestMendsWhatIsNamed(t *testing.T) {
	need.Have(t, need.Root)
	w := newWard(t, NFT, 400)
	id, other := w.chain(3), w.chain(4)
	command(t, "iptables", NFT, "", "-t", "nat", "-D", id, "2")
	woken(t, w.wakes, "a rule deleted")
	if in, ok := w.named(w.model.Table()); !ok || !maps.Equal(in, map[spot]bool{{table: nat, chain: id}: true}) {
		t.Errorf("the kernel named %v (%v)", in, ok)
	}
	w.known = false
	if r, err := w.Sync(hosttest.Ctx(t), w.model.Table()); err != nil || r.Chains != 1 { // by a look at everything
		t.Errorf("Sync: %+v, %v", r, err)
	}
	handles := func(chain string) string {
		out, err := exec.Command("nft", "-a", "list", "chain", "ip", "nat", chain).CombinedOutput()
		if err != nil {
			t.Fatalf("nft -a list chain ip nat %s: %v: %s", chain, err, out)
		}
		return string(out)
	}
	same, broken := handles(other), handles(id)
	command(t, "iptables", NFT, "", "-t", "nat", "-D", id, "2")
	w.mends("a rule deleted")
	if handles(other) != same {
		t.Error("a chain is written again in which nobody wrote")
	}
	if now := handles(id); now == broken || strings.Count(now, "dnat to") != strings.Count(broken, "dnat to") {
		t.Errorf("mended there is\n%s", now)
	}
}

// TestGlance: of a flushed table the kernel's chains tell what iptables-save does; of
// one that has rules of ours they tell nothing.
func TestGlance(t *testing.T) {
	need.Have(t, need.Root)
	w := newWard(t, NFT, 40)
	for _, x := range w.tools {
		if _, ok := w.glance(hosttest.Ctx(t), x, nat); ok {
			t.Error("a glance is enough, where there are rules")
		}
		command(t, x.f.command, NFT, "", "-t", nat, "-F")
		got, ok := w.glance(hosttest.Ctx(t), x, nat)
		want, err := parse(strings.NewReader(command(t, x.f.command, NFT, "-save", "-t", nat)), w.left.seed, w.ours)
		must(t, err)
		if !ok || len(want.chains) == 0 || !maps.Equal(got.chains, want.chains) || len(want.rules) > 0 {
			t.Errorf("%s: a glance tells %v, %v, and iptables-save %v", x.f.command, got, ok, want)
		}
		command(t, x.f.command, NFT, "", "-t", nat, "-A", "OUTPUT", "-j", "NODEAGENT-SERVICES")
		if _, ok := w.glance(hosttest.Ctx(t), x, nat); ok {
			t.Error("a glance is enough, where somebody's rule leads to ours")
		}
	}
}
