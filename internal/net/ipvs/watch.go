package ipvs

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
	"nodeagent/internal/net/news"
)

// How often virtual servers and sets are looked at, of which the kernel tells
// nothing: of sets their counts, and what is in them as often where that is little
// work, else less often.
const (
	lookEvery = 2 * time.Second
	readLate  = 5   // looks at counts for one at elements, at most
	readShare = 100 // that one may take so much of the time until the next
)

// untilRead is after how many looks at counts elements are to be read again, which
// took so long.
func untilRead(took time.Duration) int {
	return min(max(int(readShare*took/lookEvery), 1), readLate)
}

// Watch calls wake when somebody else changes our servers, addresses, sets or
// rules, or may have, and when an endpoint that has no connections any more can
// go, until ctx ends or the kernel's news are lost. wake must not block; a Sync
// mends.
//
// Of addresses, and of rules in the flavour nft, the kernel tells. For the rest it
// is looked whether anything is other than we left it.
func (b *Backend) Watch(ctx context.Context, wake func()) error {
	if err := present(); err != nil {
		return fmt.Errorf("watch IPVS: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	linksMoved := func() { b.links.Store(true) }
	for _, group := range []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR} {
		g.Go(func() error {
			return news.Listen(ctx, unix.NETLINK_ROUTE, group, func(netlink.Message) { linksMoved() }, linksMoved)
		})
	}
	g.Go(func() error {
		rulesMoved := func() { b.rules.Store(true) }
		return news.Listen(ctx, unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES, func(m netlink.Message) {
			if bytes.Contains(m.Data, []byte(chainPrefix)) {
				rulesMoved()
			}
		}, rulesMoved)
	})
	g.Go(func() error { return b.lookOften(ctx, wake) })
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("watch IPVS: %w", err)
	}
	return nil
}

func (b *Backend) lookOften(ctx context.Context, wake func()) error {
	wake() // what changed before
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	legacy := map[string]uint64{}
	for left := 1; ; left-- {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		begun, all := time.Now(), left <= 1
		if b.changed(ctx, legacy, all) {
			wake()
		}
		if all {
			left = untilRead(time.Since(begun)) + 1
		}
	}
}

// changed tells whether a Sync has something to do. While somebody writes it says
// no: what that leaves is looked at the next time. If all it also looks into sets.
func (b *Backend) changed(ctx context.Context, legacy map[string]uint64, all bool) bool {
	if !b.mu.TryLock() {
		return false
	}
	defer b.mu.Unlock()
	if !b.known {
		return false // who wrote last knows
	}
	return b.serversChanged() || b.setsChanged(ctx, all) || b.addressesChanged() || b.rulesChanged(ctx, legacy)
}

func (b *Backend) serversChanged() bool {
	f, err := os.Open("/proc/thread-self/net/ip_vs")
	if err != nil {
		return true
	}
	defer f.Close()
	total, idle, err := readTable(f)
	if err != nil || total != b.sum {
		return true
	}
	for d, since := range b.drains {
		if _, done := idle[d.text()]; done || time.Since(since) > drainLimit {
			return true
		}
	}
	return false
}

func (b *Backend) setsChanged(ctx context.Context, all bool) bool {
	if b.sets == nil || b.sets.bound(ctx) != nil {
		return true
	}
	there, err := b.sets.headers()
	if err != nil {
		return true
	}
	for _, f := range families() {
		for k := range setKinds {
			if h, ok := there[k.name(f.v6)]; !ok || h.count != b.counts[k.name(f.v6)] {
				return true
			}
		}
	}
	return all && b.elementsChanged()
}

// elementsChanged looks for one that was exchanged for another.
func (b *Backend) elementsChanged() bool {
	var total sum
	for _, f := range families() {
		for k := range setKinds {
			els := map[element]uint32{}
			if err := b.sets.list(k, k.name(f.v6), els); err != nil {
				return true
			}
			for x, mark := range els {
				total += b.sumElement(x, mark)
			}
		}
	}
	return total != b.elements
}

func (b *Backend) addressesChanged() bool {
	if !b.links.Swap(false) {
		return false
	}
	at, err := b.readAddresses()
	if err != nil || at.device == nil || !at.up || !slices.Equal(at.nodes, b.plan.nodes) {
		return true
	}
	for a := range b.plan.uses {
		if !at.bound[a] && !b.plan.elsewhere(a) {
			return true
		}
	}
	held := b.held()
	for a := range at.bound {
		if b.plan.uses[a] == 0 && !held[a] && !b.excluded(a) {
			return true
		}
	}
	return false
}

func (b *Backend) rulesChanged(ctx context.Context, legacy map[string]uint64) bool {
	look := b.rules.Swap(false)
	for _, t := range b.tools {
		if t.nft {
			continue
		}
		now := t.counts()
		look = look || legacy[t.save] != now
		legacy[t.save] = now
	}
	if !look {
		return false
	}
	for _, t := range b.tools {
		if have, err := t.read(ctx); err != nil || b.patch(t.f, have) != "" {
			return true
		}
	}
	return false
}

// text is what readTable calls an endpoint.
func (d drain) text() string { return d.key() + " " + d.end.String() }

// readTable reads /proc/net/ip_vs: the sum of all servers, and which endpoints get
// no connections and have none.
func readTable(r io.Reader) (total sum, idle map[string]struct{}, err error) {
	idle = map[string]struct{}{}
	s := bufio.NewScanner(r)
	var now server
	for s.Scan() {
		words := strings.Fields(s.Text())
		switch {
		case len(words) < 3:
		case words[0] == "->" && len(words) == 6:
			a, err := endpointOf(words[1])
			if err != nil {
				continue // the heading
			}
			weight, err := strconv.Atoi(words[3])
			if err != nil {
				return 0, nil, fmt.Errorf("read the kernel's list of virtual servers: %q", s.Text())
			}
			if words[2] != "Masq" {
				weight = foreignWeight
			}
			total += now.sumEnd(a, weight)
			if weight == 0 && words[4] == "0" {
				idle[drain{now, a}.text()] = struct{}{}
			}
		default:
			var p pool
			if now, p, err = serverLine(words); err == nil {
				total += now.sum(p)
			}
		}
	}
	return total, idle, s.Err()
}

// serverLine reads "TCP  0A600001:0050 rr persistent 10800 FFFFFFFF" or
// "FWM  69700004 rr".
func serverLine(words []string) (server, pool, error) {
	var s server
	p := pool{scheduler: words[2]}
	for i, w := range words {
		if w == "persistent" && i+1 < len(words) {
			n, _ := strconv.ParseUint(words[i+1], 10, 32)
			p.keep = uint32(n)
		}
	}
	if words[0] == "FWM" {
		m, err := strconv.ParseUint(words[1], 16, 32)
		s.mark = uint32(m)
		return s, p, err
	}
	a, err := endpointOf(words[1])
	s.at = net.Address{IP: a.Addr(), Port: a.Port(), Proto: protocols[words[0]]}
	return s, p, err
}

var protocols = map[string]net.Proto{"TCP": net.TCP, "UDP": net.UDP, "SCTP": net.SCTP}

// endpointOf reads "0A600001:0050" or "[fd96:0000:…:0001]:0050".
func endpointOf(s string) (netip.AddrPort, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", s)
	}
	port, err := strconv.ParseUint(s[i+1:], 16, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if strings.HasPrefix(s, "[") {
		a, err := netip.ParseAddr(strings.Trim(s[:i], "[]"))
		return netip.AddrPortFrom(a, uint16(port)), err
	}
	raw, err := hex.DecodeString(s[:i])
	a, ok := netip.AddrFromSlice(raw)
	if err == nil && !ok {
		err = fmt.Errorf("%q is no address", s)
	}
	return netip.AddrPortFrom(a, uint16(port)), err
}
