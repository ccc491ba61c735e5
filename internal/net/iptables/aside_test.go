package iptables

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
	"nodeagent/internal/net/hosttest"
	. "nodeagent/internal/net/nettest"
	"nodeagent/internal/net/news"
	"nodeagent/internal/test/need"
)

// TestToldAsAWhole: who is woken knows all that one transaction of somebody else's
// changed, and what he mends is not looked at twice.
func TestToldAsAWhole(t *testing.T) {
	need.Have(t, need.Root)
	w := newWard(t, NFT, 400)
	const n = 50
	chains := map[string]bool{}
	for i := 0; len(chains) < n; i++ {
		chains[slotOf(w.layouts[0], w.entry(i), i%5)] = true
	}
	text := "*nat\n"
	for name := range chains {
		text += "-D " + name + " 2\n"
	}
	for range 5 {
		pour(t, "iptables-nft-restore", text+"COMMIT\n")
		woken(t, w.wakes, "rules deleted")
		w.mu.Lock()
		got := len(w.spots)
		w.mu.Unlock()
		if got != n {
			t.Errorf("of %d chains in which somebody wrote, %d are known", n, got)
		}
		r, err := w.Sync(hosttest.Ctx(t), w.model.Table())
		must(t, err)
		if r.Chains != n || !w.heardNothing(w.model.Table()) {
			t.Errorf("mended is %+v; it is known to be all: %v", r, w.heardNothing(w.model.Table()))
		}
	}
}

// TestWakesAtTheEnd: the messages of a transaction do not wake before its last one.
func TestWakesAtTheEnd(t *testing.T) {
	b, err := New(Config{})
	must(t, err)
	message := func(what uint16, chain string) netlink.Message {
		ae := netlink.NewAttributeEncoder()
		ae.String(attrTable, nat)
		ae.String(attrRuleChain, chain)
		text, err := ae.Encode()
		must(t, err)
		return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | what), PID: 4711}, Data: append([]byte{unix.AF_INET, 0, 0, 0}, text...)}
	}
	wakes := 0
	hear := b.hears(func() { wakes++ })
	hear(message(unix.NFT_MSG_NEWGEN, "")) // of somebody else's own
	for range 3 {
		hear(message(unix.NFT_MSG_DELRULE, "NODEAGENT-SVC-A"))
		hear(message(unix.NFT_MSG_DELRULE, "FOREIGN"))
		hear(message(unix.NFT_MSG_DELRULE, "NODEAGENT-SVC-B"))
	}
	if wakes != 0 || len(b.spots) != 2 {
		t.Errorf("woken %d times in the middle, and %d chains are known", wakes, len(b.spots))
	}
	hear(message(unix.NFT_MSG_NEWGEN, ""))
	hear(message(unix.NFT_MSG_NEWGEN, ""))
	if wakes != 1 {
		t.Errorf("woken %d times for one transaction", wakes)
	}
}

// TestUnheard: of what we write at once for many services nobody is told, and nothing is
// lost; what somebody else writes after it is told, and what he wrote in the middle too.
func TestUnheard(t *testing.T) {
	need.Have(t, need.Root)
	var own news.Own
	b := backend(t, Config{Flavour: NFT, Own: &own})
	wakes := hosttest.Watch(t, b)
	woken(t, wakes, "the start")
	var ours, unsure atomic.Int32
	listening, ended := make(chan struct{}), make(chan error, 1)
	ctx, end := context.WithCancel(context.Background())
	defer end()
	go func() {
		ended <- own.Others(ctx, unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES, func(m netlink.Message) {
			switch {
			case b.isChild(int(m.Header.PID)):
				ours.Add(1)
			case strings.Contains(string(m.Data), "SENTINEL"):
				end()
			}
		}, func() {
			if unsure.Add(1) == 1 {
				close(listening)
			}
		})
	}()
	<-listening
	services, endpoints := Many(1500, 5)
	table := net.Build(services, endpoints, thisNode)
	r, err := b.Sync(hosttest.Ctx(t), table)
	must(t, err)
	if r.Chains <= maxBatch {
		t.Fatalf("%d chains are not many", r.Chains)
	}
	if !b.heardNothing(table) {
		t.Error("after it is written it is not known what is there")
	}
	command(t, "iptables", NFT, "", "-t", "nat", "-N", "SENTINEL")
	defer command(t, "iptables", NFT, "", "-t", "nat", "-X", "SENTINEL")
	must(t, <-ended)
	if ours.Load() > 0 || unsure.Load() != 1 {
		t.Errorf("told was %d times of ours, and %d times that something may be lost", ours.Load(), unsure.Load()-1)
	}
	if len(wakes) > 0 {
		t.Error("what we wrote ourselves wakes us")
	}
	id := slotOf(b.layouts[0], table.Sorted()[3], 2)
	since, err := generation(hosttest.Ctx(t))
	must(t, err)
	command(t, "iptables", NFT, "", "-t", "nat", "-D", id, "2") // after our look
	woken(t, wakes, "a rule deleted")
	var all []rewrite
	b.layouts[0].each(table, func(c chain) {
		if c.table == nat && c.name != id {
			all = append(all, rewrite{chain: c})
		}
	})
	must(t, b.writeAll(hosttest.Ctx(t), since, []work{{b.tools[0], steps(NFT, []patch{{table: nat, write: all}})}}, b.settle))
	woken(t, wakes, "somebody in the middle")
	if b.heardNothing(table) {
		t.Error("somebody wrote between look and change, and nothing is known of it")
	}
	if r, err := b.Sync(hosttest.Ctx(t), table); err != nil || r.Chains != 1 {
		t.Errorf("mended is %+v, %v", r, err)
	}
	since, err = generation(hosttest.Ctx(t))
	must(t, err)
	b.note(netlink.Message{}) // what happened before our look is heard late
	must(t, b.writeAll(hosttest.Ctx(t), since, []work{{b.tools[0], steps(NFT, []patch{{table: nat, write: all}})}}, b.settle))
	if !b.heardNothing(table) {
		t.Error("what was mended is to be looked at once more")
	}
}

// TestSteps: no run is larger than the program can take well; those of one step have
// chains of one rank; and no jump of the kernel's is written before all to which it leads.
func TestSteps(t *testing.T) {
	services, endpoints := Many(10_000, 5)
	m := Filled(thisNode, services, endpoints)
	b, err := New(Config{Pods: pods})
	must(t, err)
	l := b.plan(m.Table())[0]
	ps := []patch{{table: nat}, {table: filter}}
	l.each(m.Table(), func(c chain) {
		p := &ps[0]
		if c.table == filter {
			p = &ps[1]
		}
		p.write = append(p.write, rewrite{chain: c})
	})
	for _, j := range l.jumps() {
		p := &ps[0]
		if j.table == filter {
			p = &ps[1]
		}
		p.insert = append(p.insert, j)
	}
	chains := len(ps[0].write) + len(ps[1].write)
	all := steps(NFT, ps)
	beside := 0
	for i, step := range all {
		ranks := map[string]bool{}
		beside = max(beside, len(step))
		for _, x := range step {
			for _, p := range x {
				chains -= len(p.write)
				if len(p.write) > maxBatch || p.rules() > maxRules {
					t.Errorf("step %d writes %d chains and %d rules at once", i, len(p.write), p.rules())
				}
				if len(p.insert) > 0 && i != len(all)-1 {
					t.Errorf("jumps are in step %d of %d", i, len(all))
				}
				for _, c := range p.write {
					ranks[fmt.Sprint(p.table, rank(c.name))] = true
				}
			}
		}
		if len(step) > 1 && i < len(all)-1 && len(ranks) > 1 {
			t.Errorf("step %d has %d runs with chains of ranks %v", i, len(step), ranks)
		}
	}
	if chains != 0 || beside < 5 {
		t.Errorf("%d chains are not written, and at most %d runs are side by side", chains, beside)
	}
}

// pour gives a program its input.
func pour(t *testing.T, name, text string) {
	t.Helper()
	c := exec.CommandContext(hosttest.Ctx(t), name, "--noflush", "-w", "5")
	c.Stdin = strings.NewReader(text)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}
