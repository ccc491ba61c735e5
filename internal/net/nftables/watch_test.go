package nftables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
	"nodeagent/internal/net/hosttest"
	"nodeagent/internal/net/nettest"
	"nodeagent/internal/net/news"
	"nodeagent/internal/test/need"
)

// ear counts what one who listens to others is told, until it is told of a
// sentinel.
type ear struct {
	by           map[uint32]int // news by the sockets that they come from
	unsure       int
	begun, ended chan struct{}
}

// listen begins before it returns.
func listen(t *testing.T, own *news.Own) *ear {
	t.Helper()
	ctx, cancel := context.WithCancel(hosttest.Ctx(t))
	e := &ear{by: map[uint32]int{}, begun: make(chan struct{}, 1<<10), ended: make(chan struct{})}
	go func() {
		defer close(e.ended)
		defer cancel()
		err := own.Others(ctx, unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES, func(m netlink.Message) {
			e.by[m.Header.PID]++
			if bytes.Contains(m.Data, []byte("sentinel")) {
				cancel()
			}
		}, func() {
			e.unsure++
			e.begun <- struct{}{}
		})
		if err != nil {
			t.Error(err)
		}
	}()
	<-e.begun
	return e
}

// TestOwnIsNotTold: of a transaction of ours nobody is told who listens to others, be it
// small or large, and nothing is lost; what somebody else writes after it is told.
func TestOwnIsNotTold(t *testing.T) {
	need.Have(t, need.Root)
	for _, n := range []int{50, 3000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			var own news.Own
			b := backend(t, Config{Own: &own})
			wakes := watch(t, b)
			e := listen(t, &own)
			services, endpoints := nettest.Many(n, 5)
			r, err := b.Sync(hosttest.Ctx(t), net.Build(services, endpoints, thisNode))
			must(t, err)
			if many := n > 50; r.Elements >= manyElements != many {
				t.Fatalf("%d elements are many: %v", r.Elements, !many)
			}
			nft(t, "add table inet sentinel")
			defer nft(t, "delete table inet sentinel")
			<-e.ended
			if ours := e.by[b.raw.PID()]; ours > 0 || e.unsure != 1 {
				t.Errorf("told was %d times of ours, and %d times that something may be lost", ours, e.unsure-1)
			}
			if len(wakes) > 0 {
				t.Error("our own transaction wakes us")
			}
			nft(t, "add element inet nodeagent-services cluster-ips4 { 10.96.77.77 }")
			woken(t, wakes)
		})
	}
}

// TestForeignInTheMiddle: an element that somebody else puts into our table while nobody
// listens, since a large transaction of ours is under way, wakes all the same.
func TestForeignInTheMiddle(t *testing.T) {
	need.Have(t, need.Root)
	b := backend(t, Config{})
	_, err := b.Sync(hosttest.Ctx(t), &net.Table{})
	must(t, err)
	wakes := watch(t, b)
	c, err := b.open(hosttest.Ctx(t))
	must(t, err)
	since, err := b.generation()
	must(t, err)
	must(t, b.own.Aside(since, b.generation, func() (int, error) {
		if n := listeners(t); n > 0 {
			t.Errorf("%d listen meanwhile", n)
		}
		nft(t, "add element inet nodeagent-services cluster-ips4 { 10.96.77.77 }")
		c.AddChain(&nftables.Chain{Name: "ours", Table: b.table})
		return 1, c.Flush()
	}))
	woken(t, wakes)
	if n := listeners(t); n != 1 {
		t.Errorf("%d listen after it", n)
	}
	if r, err := b.Sync(hosttest.Ctx(t), &net.Table{}); err != nil || !r.Rebuilt && r.Elements != 1 {
		t.Errorf("mended is %+v, %v", r, err)
	}
	nft(t, "add element inet nodeagent-services cluster-ips4 { 10.96.77.77 }") // it listens again
	woken(t, wakes)
	err = b.own.Aside(since, b.generation, func() (int, error) { return 0, unix.EINVAL })
	if !errors.Is(err, unix.EINVAL) {
		t.Errorf("a change that fails: %v", err)
	}
	woken(t, wakes)
}

// listeners are those for whose sake the kernel makes news of nftables in this namespace.
func listeners(t *testing.T) (n int) {
	t.Helper()
	all, err := os.ReadFile("/proc/thread-self/net/netlink")
	must(t, err)
	for line := range strings.Lines(string(all)) { // sk, protocol, port, groups, ...
		f := strings.Fields(line)
		groups, err := strconv.ParseUint(f[3], 16, 32)
		if err == nil && f[1] == strconv.Itoa(unix.NETLINK_NETFILTER) && groups&(1<<(unix.NFNLGRP_NFTABLES-1)) != 0 {
			n++
		}
	}
	return n
}

// watch begins before it returns.
func watch(t *testing.T, b *Backend) chan struct{} {
	t.Helper()
	wakes := hosttest.Watch(t, b)
	woken(t, wakes)
	return wakes
}

func woken(t *testing.T, wakes chan struct{}) {
	t.Helper()
	select {
	case <-wakes:
	case <-hosttest.Ctx(t).Done():
		t.Fatal("nobody is woken")
	}
}
