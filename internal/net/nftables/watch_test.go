package nftables

import (
	"context"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
	"nodeagent/internal/net/hosttest"
	"nodeagent/internal/net/nettest"
	"nodeagent/internal/net/news"
	"nodeagent/internal/test/need"
)

// ear counts what one who listens to others is told, until it is told of a new table.
type ear struct {
	by           map[uint32]int // news by the sockets that they come from
	elements     int            // of them, those of elements
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
			switch uint16(m.Header.Type) & 0xff {
			case unix.NFT_MSG_NEWSETELEM:
				e.elements++
			case unix.NFT_MSG_NEWTABLE:
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

// TestOwnIsNotTold: of a large transaction of ours nobody is told who listens to
// others, and nothing is lost; what somebody else writes in the middle of it is told.
func TestOwnIsNotTold(t *testing.T) {
	need.Have(t, need.Root)
	var own news.Own
	b := backend(t, Config{Own: &own})
	_, err := b.Sync(hosttest.Ctx(t), &net.Table{})
	must(t, err)
	nft(t, "add table inet foreign { set s { type ipv4_addr; }; }")
	t.Cleanup(func() { nft(t, "delete table inet foreign") })
	b.Close() // so that the socket, too, is one that comes while there are listeners

	woken := make(chan struct{}, 1<<10)
	ctx, cancel := context.WithCancel(hosttest.Ctx(t))
	watched := make(chan error)
	go func() { watched <- b.Watch(ctx, func() { woken <- struct{}{} }) }()
	<-woken
	e := listen(t, &own)

	services, endpoints := nettest.Many(3000, 5)
	wrote := make(chan error)
	go func() {
		_, err := b.Sync(hosttest.Ctx(t), net.Build(services, endpoints, thisNode))
		wrote <- err
	}()
	for writing := true; writing; {
		select {
		case err := <-wrote:
			must(t, err)
			writing = false
		default:
			nft(t, "add element inet foreign s { 192.0.2.1 }")
			nft(t, "delete element inet foreign s { 192.0.2.1 }")
		}
	}
	if n := len(woken); n > 0 {
		t.Errorf("our own transaction wakes us, %d times", n)
	}
	nft(t, "add element inet nodeagent-services cluster-ips4 { 10.96.77.77 }")
	select {
	case <-woken:
	case <-ctx.Done():
		t.Error("nobody is woken by an element of somebody else's")
	}
	nft(t, "add table inet sentinel")
	defer nft(t, "delete table inet sentinel")
	<-e.ended
	if ours := e.by[b.raw.PID()]; ours > 0 || e.unsure != 1 || e.elements == 0 {
		t.Errorf("told was %d times of ours, of %d elements of others, and %d times that something may be lost", ours, e.elements, e.unsure-1)
	}
	cancel()
	must(t, <-watched)
}

// TestForeignInTheMiddle: an element that somebody else puts into our table while a large
// transaction of ours is under way wakes, whichever of the two comes first.
func TestForeignInTheMiddle(t *testing.T) {
	need.Have(t, need.Root)
	b := backend(t, Config{})
	_, err := b.Sync(hosttest.Ctx(t), &net.Table{})
	must(t, err)
	woken := make(chan struct{}, 1<<10)
	ctx, cancel := context.WithCancel(hosttest.Ctx(t))
	watched := make(chan error)
	go func() { watched <- b.Watch(ctx, func() { woken <- struct{}{} }) }()
	<-woken
	services, endpoints := nettest.Many(3000, 5)
	table := net.Build(services, endpoints, thisNode)
	c, err := b.open(hosttest.Ctx(t))
	must(t, err)
	_, want, err := b.compare(c, table)
	must(t, err)
	b.syncChains(c, nil, &net.Report{})
	_, err = b.writeChanges(c, nil, want)
	must(t, err)
	wrote := make(chan error)
	go func() { wrote <- c.Flush() }()
	nft(t, "add element inet nodeagent-services cluster-ips4 { 10.96.77.77 }")
	must(t, <-wrote)
	select {
	case <-woken:
	case <-ctx.Done():
		t.Error("nobody is woken")
	}
	cancel()
	must(t, <-watched)
	if r, err := b.Sync(hosttest.Ctx(t), table); err != nil || r.Elements != 1 {
		t.Errorf("mended is %+v, %v", r, err)
	}
}
