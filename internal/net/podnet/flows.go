package podnet

import (
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
func (t *flowTable) delete(f flowFilter) error {
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
	err := deleteFlows(t.h, f)
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
	for _, b := range bs {
		if b.Proto == unix.IPPROTO_UDP {
			f.ports[b.HostPort] = true
		}
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
	if err := t.delete(f); err != nil {
		return fmt.Errorf("forget udp connections of published ports: %w", err)
	}
	return nil
}

// deleteFlows looks at both families in one dump: a dump walks the whole hash
// table, some 8 ms with 262144 buckets, however few the entries.
// Only a family with an entry to delete is walked once more.
func deleteFlows(h *netlink.Handle, f flowFilter) error {
	flows, err := retryDump(func() ([]*netlink.ConntrackFlow, error) {
		return h.ConntrackTableList(netlink.ConntrackTable, unix.AF_UNSPEC)
	})
	if err != nil {
		return fmt.Errorf("list connections: %w", err)
	}
	families := map[netlink.InetFamily]bool{}
	for _, flow := range flows {
		if f.MatchConntrackFlow(flow) {
			families[netlink.InetFamily(flow.FamilyType)] = true
		}
	}
	for fam := range families {
		_, err := retryDump(func() ([]struct{}, error) {
			_, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, fam, f)
			return nil, err
		})
		if err != nil {
			return err
		}
	}
	return nil
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
