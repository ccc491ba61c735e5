package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/net/news"
	apinode "nodeagent/internal/node"
)

// addresses keeps the node's addresses as the host has them now: those that its Node
// and its serving certificate name, and those of pods on the host's network. The
// kernel tells when to look again.
type addresses struct {
	d    *daemon
	poke chan struct{} // holds one

	mu   sync.Mutex
	host []netip.Addr
	node []corev1.NodeAddress // nil: the node stands alone
	said string               // the last trouble that was logged
}

// learn finds them for the first time: without any the daemon does not start.
func (a *addresses) learn(d *daemon) (err error) {
	a.d, a.poke = d, make(chan struct{}, 1)
	a.host, a.node, err = a.read()
	return err
}

func (a *addresses) read() (host []netip.Addr, node []corev1.NodeAddress, err error) {
	local, err := localAddrs()
	if err != nil {
		return nil, nil, err
	}
	if host, err = nodeAddrs(a.d.cfg.NodeIPs, a.ofHost(), local); err != nil || a.d.cluster == nil {
		return host, nil, err
	}
	in := apinode.AddressInputs{Hostname: a.d.cfg.NodeName, ExternalCloud: a.d.cfg.Cluster.ExternalCloud, Local: local}
	if in.Given, err = parseAddrs(a.d.cfg.NodeIPs); err != nil {
		return nil, nil, err
	}
	in.Routed = slices.DeleteFunc(slices.Clone(host), netip.Addr.IsLoopback)
	node, err = apinode.Addresses(in)
	return host, node, err
}

// nodeAddrs are the node's addresses: those given, else the address by which the default
// route leaves, of each family. An unspecified one that is given says only which family
// comes first. Where a family has no default route for now, an address of before stays
// that the host still has: a node that goes over to its other family is another one to
// all who know it.
func nodeAddrs(given []string, before, local []netip.Addr) ([]netip.Addr, error) {
	all, err := parseAddrs(given)
	if err != nil {
		return nil, err
	}
	prefer6 := len(all) > 0 && all[0].Is6()
	if all = slices.DeleteFunc(all, netip.Addr.IsUnspecified); len(all) > 0 {
		return all, nil
	}
	if all, err = hostAddrs(); err != nil {
		return nil, err
	}
	for _, b := range before {
		routed := func(a netip.Addr) bool { return a.Is6() == b.Is6() && !a.IsLoopback() }
		if !b.IsLoopback() && slices.Contains(local, b) && !slices.ContainsFunc(all, routed) {
			all = append(slices.DeleteFunc(all, netip.Addr.IsLoopback), b)
		}
	}
	if all[0].IsLoopback() && len(before) > 0 {
		return before, nil // an interface that goes down and comes up again is no other node
	}
	slices.SortStableFunc(all, func(x, y netip.Addr) int {
		switch {
		case x.Is6() == y.Is6():
			return 0
		case x.Is6() == prefer6:
			return -1
		}
		return 1
	})
	return all, nil
}

func parseAddrs(texts []string) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("parse the node's address: %w", err)
		}
		all = append(all, a)
	}
	return all, nil
}

// localAddrs are all addresses of this host.
func localAddrs() ([]netip.Addr, error) {
	local, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list this host's addresses: %w", err)
	}
	var all []netip.Addr
	for _, a := range local {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			all = append(all, p.Addr().Unmap())
		}
	}
	return all, nil
}

// ofHost are those of pods on the host's network. They must not be changed.
func (a *addresses) ofHost() []netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.host
}

// first is the one that such a pod is probed at.
func (a *addresses) first() string {
	if all := a.ofHost(); len(all) > 0 {
		return all[0].String()
	}
	return ""
}

// ofNode are those that the Node tells. They must not be changed.
func (a *addresses) ofNode() []corev1.NodeAddress {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.node
}

// What the kernel tells of addresses and of the routes that choose among them.
var addressNews = []uint32{
	unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
}

const (
	// addressCalm is how long news of one change, and of the pods that come and go, are
	// waited for before the addresses are read.
	addressCalm = time.Second
	// addressAgain is when the kernel is listened to again where that failed.
	addressAgain = 10 * time.Second
)

// run keeps them true until ctx ends.
func (a *addresses) run(ctx context.Context) error {
	var ears sync.WaitGroup
	defer ears.Wait()
	for _, group := range addressNews {
		ears.Go(func() { a.listen(ctx, group) })
	}
	calm := time.NewTimer(time.Hour)
	calm.Stop()
	defer calm.Stop()
	waiting := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.poke:
			if !waiting {
				waiting = true
				calm.Reset(addressCalm)
			}
		case <-calm.C:
			waiting = false
			a.look()
		}
	}
}

func (a *addresses) listen(ctx context.Context, group uint32) {
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for ctx.Err() == nil {
		err := news.Listen(ctx, unix.NETLINK_ROUTE, group, func(netlink.Message) { a.wake() }, a.wake)
		if ctx.Err() != nil {
			return
		}
		a.d.log.Warn("cannot hear of changes of the node's addresses; trying again", "err", err)
		again.Reset(addressAgain)
		select {
		case <-ctx.Done():
		case <-again.C:
		}
	}
}

// wake has them read again. It never blocks.
func (a *addresses) wake() {
	select {
	case a.poke <- struct{}{}:
	default:
	}
}

// look reads them and tells who depends on them. What was known stays while an address
// that was given is not the host's.
func (a *addresses) look() {
	host, node, err := a.read()
	a.mu.Lock()
	if err != nil {
		again := a.said == err.Error()
		a.said = err.Error()
		a.mu.Unlock()
		if !again {
			a.d.log.Warn("keep the node's addresses as they were", "err", err)
		}
		return
	}
	a.said = ""
	ofHost, ofNode := !slices.Equal(host, a.host), !slices.Equal(node, a.node)
	a.host, a.node = host, node
	a.mu.Unlock()
	if ofHost {
		a.d.log.Info("the host's addresses have changed", "addresses", host)
		a.d.set.WakeAll()
	}
	if ofNode {
		a.d.log.Info("the node's addresses have changed", "addresses", node)
		a.d.serving.SetNames(servingNames(node))
		a.d.cluster.node.Wake()
	}
}
