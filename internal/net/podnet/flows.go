package podnet

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// flowFilter picks UDP connection entries of published ports.
type flowFilter struct {
	ports map[uint16]bool
	// pods, if set, limits it to entries that lead to one of them; else all
	// entries to one of local's addresses are meant.
	pods  map[netip.Addr]bool
	local map[netip.Addr]bool
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f flowFilter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP || !f.ports[flow.Forward.DstPort] {
		return false
	}
	if f.pods != nil {
		a, _ := netip.AddrFromSlice(flow.Reverse.SrcIP)
		return f.pods[a.Unmap()]
	}
	a, _ := netip.AddrFromSlice(flow.Forward.DstIP)
	return f.local[a.Unmap()]
}

// flowTable is the node's table of connections. It keeps its socket for the same
// reason as nftBackend.
type flowTable struct {
	mu sync.Mutex
	h  *netlink.Handle
}

func (t *flowTable) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.h != nil {
		t.h.Close()
		t.h = nil
	}
}

// delete removes the entries that f picks.
func (t *flowTable) delete(fam netlink.InetFamily, f flowFilter) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.h == nil {
		h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
		if err != nil {
			return fmt.Errorf("open netfilter socket: %w", err)
		}
		if err := h.SetSocketTimeout(linkTimeout); err != nil {
			h.Close()
			return fmt.Errorf("bound netfilter socket: %w", err)
		}
		t.h = h
	}
	err := deleteFlows(t.h, fam, f)
	if err != nil {
		t.h.Close() // an answer may still be in it
		t.h = nil
	}
	return err
}

// forget deletes the connection entries of UDP bindings: those that lead
// to pods or, with none given, all to the node's own addresses. Without UDP it
// costs nothing; with it, a dump of the connection table.
func (t *flowTable) forget(bs []binding, pods []netip.Addr) error {
	f := flowFilter{ports: map[uint16]bool{}}
	families := map[netlink.InetFamily]bool{}
	for _, b := range bs {
		if b.Proto != unix.IPPROTO_UDP {
			continue
		}
		f.ports[b.HostPort] = true
		families[inetFamily(b.Pod)] = true
	}
	if len(f.ports) == 0 {
		return nil
	}
	if pods != nil {
		f.pods = map[netip.Addr]bool{}
		for _, a := range pods {
			f.pods[a] = true
		}
	} else if err := f.findLocal(); err != nil {
		return err
	}
	for fam := range families {
		if err := t.delete(fam, f); err != nil {
			return fmt.Errorf("forget udp connections of published ports: %w", err)
		}
	}
	return nil
}

func inetFamily(a netip.Addr) netlink.InetFamily {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func deleteFlows(h *netlink.Handle, fam netlink.InetFamily, f flowFilter) (err error) {
	for range 8 {
		_, err = h.ConntrackDeleteFilters(netlink.ConntrackTable, fam, f)
		// ENOENT: the entry timed out between dump and deletion.
		if !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return err
}

func (f *flowFilter) findLocal() error {
	h, err := routes()
	if err != nil {
		return err
	}
	defer h.Close()
	addrs, err := retryDump(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list addresses of the node: %w", err)
	}
	f.local = map[netip.Addr]bool{}
	for _, a := range addrs {
		f.local[prefixOf(a.IPNet).Addr()] = true
	}
	return nil
}
