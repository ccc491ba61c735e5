package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
)

// callTimeout bounds one answer of the kernel.
const callTimeout = 10 * time.Second

// maxDumps is how often a look is taken again that the kernel says was disturbed.
const maxDumps = 4

// Table is the kernel's table of connections. It keeps no socket: what it is
// asked for is rare.
type Table struct{}

// Forget removes the entries of UDP flows to these addresses that do not lead to
// one of the endpoints, and says how many there were. It costs a look at all
// connections of a family.
func (Table) Forget(ctx context.Context, flows net.Flows) (int, error) {
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, fmt.Errorf("open netfilter socket: %w", err)
	}
	defer h.Close()
	if err := h.SetSocketTimeout(callTimeout); err != nil {
		return 0, fmt.Errorf("bound netfilter socket: %w", err)
	}
	f := stale{flows: flows}
	if err := f.findLocal(); err != nil {
		return 0, err
	}
	n := 0
	for _, family := range f.families() {
		got, err := f.forget(ctx, h, family)
		if n += got; err != nil {
			return n, fmt.Errorf("forget udp flows to endpoints that are gone: %w", err)
		}
	}
	return n, nil
}

// forget does one family.
func (f *stale) forget(ctx context.Context, h *netlink.Handle, family netlink.InetFamily) (n int, err error) {
	for range maxDumps {
		if ctx.Err() != nil {
			return n, ctx.Err()
		}
		var got uint
		got, err = h.ConntrackDeleteFilters(netlink.ConntrackTable, family, f)
		if n += int(got); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return n, err
}

// stale picks the entries.
type stale struct {
	flows net.Flows
	local map[netip.Addr]bool // the node's addresses; nil: no node port is asked for
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f *stale) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	to, ok := netip.AddrFromSlice(flow.Forward.DstIP)
	if !ok {
		return false
	}
	to = to.Unmap()
	ends, asked := f.flows[net.Address{IP: to, Port: flow.Forward.DstPort, Proto: net.UDP}]
	if !asked && f.local[to] {
		ends, asked = f.flows[net.Address{IP: unspecified(to), Port: flow.Forward.DstPort, Proto: net.UDP}]
	}
	if !asked {
		return false
	}
	from, _ := netip.AddrFromSlice(flow.Reverse.SrcIP)
	return !slices.Contains(ends, netip.AddrPortFrom(from.Unmap(), flow.Reverse.SrcPort))
}

func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func (f *stale) families() []netlink.InetFamily {
	var out []netlink.InetFamily
	for _, family := range []struct {
		is4  bool
		kind netlink.InetFamily
	}{{true, unix.AF_INET}, {false, unix.AF_INET6}} {
		for a := range f.flows {
			if a.IP.Is4() == family.is4 {
				out = append(out, family.kind)
				break
			}
		}
	}
	return out
}

// findLocal finds the node's addresses, where node ports are.
func (f *stale) findLocal() error {
	some := false
	for a := range f.flows {
		some = some || a.NodePort()
	}
	if !some {
		return nil
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open route socket: %w", err)
	}
	defer h.Close()
	if err := h.SetSocketTimeout(callTimeout); err != nil {
		return fmt.Errorf("bound route socket: %w", err)
	}
	var addrs []netlink.Addr
	for range maxDumps {
		if addrs, err = h.AddrList(nil, netlink.FAMILY_ALL); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("list addresses of the node: %w", err)
	}
	f.local = map[netip.Addr]bool{}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			f.local[ip.Unmap()] = true
		}
	}
	return nil
}
