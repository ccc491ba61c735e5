package conntrack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
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
	s, err := open()
	if err != nil {
		return 0, err
	}
	defer s.Close()
	f := stale{flows: flows}
	if err := f.findLocal(); err != nil {
		return 0, err
	}
	n := 0
	for _, family := range f.families() {
		got, err := f.forget(ctx, &nl.SocketHandle{Socket: s}, family)
		if n += got; err != nil {
			return n, fmt.Errorf("forget udp flows to endpoints that are gone: %w", err)
		}
	}
	return n, nil
}

// open opens a socket of which each answer has its time.
func open() (*nl.NetlinkSocket, error) {
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netfilter socket: %w", err)
	}
	limit := unix.NsecToTimeval(callTimeout.Nanoseconds())
	if err := errors.Join(s.SetSendTimeout(&limit), s.SetReceiveTimeout(&limit)); err != nil {
		s.Close()
		return nil, fmt.Errorf("bound netfilter socket: %w", err)
	}
	return s, nil
}

// forget does one family.
func (f *stale) forget(ctx context.Context, s *nl.SocketHandle, family uint8) (n int, err error) {
	for range maxDumps {
		var gone [][]byte
		gone, err = f.find(ctx, s, family)
		if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
			return n, err
		}
		for _, msg := range gone {
			if err := ctx.Err(); err != nil {
				return n, err
			}
			r := request(s, family, nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
			r.AddRawData(msg[header:])
			if _, err := r.Execute(unix.NETLINK_NETFILTER, 0); err != nil && !errors.Is(err, unix.ENOENT) {
				return n, err
			}
			n++
		}
		if err == nil {
			break
		}
	}
	return n, err
}

// find looks at all connections of a family, as the kernel hands them out, some at a time,
// and keeps those that are to go.
func (f *stale) find(ctx context.Context, s *nl.SocketHandle, family uint8) (gone [][]byte, err error) {
	err = request(s, family, nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP).ExecuteIter(unix.NETLINK_NETFILTER, 0, func(msg []byte) bool {
		if f.matches(parseEntry(msg)) {
			gone = append(gone, bytes.Clone(msg))
		}
		return ctx.Err() == nil
	})
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return gone, err
}

func request(s *nl.SocketHandle, family uint8, operation, flags int) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|operation, flags)
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: s}
	r.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	return r
}

// stale picks the entries.
type stale struct {
	flows net.Flows
	local map[netip.Addr]bool // the node's addresses; nil: no node port is asked for
}

// matches tells whether an entry is of UDP, to one of the addresses, and leads to none of
// its endpoints.
func (f *stale) matches(e entry) bool {
	if e.proto != unix.IPPROTO_UDP || !e.called.IsValid() {
		return false
	}
	to := e.called.Addr()
	ends, asked := f.flows[net.Address{IP: to, Port: e.called.Port(), Proto: net.UDP}]
	if !asked && f.local[to] {
		ends, asked = f.flows[net.Address{IP: unspecified(to), Port: e.called.Port(), Proto: net.UDP}]
	}
	return asked && !slices.Contains(ends, e.ends)
}

func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func (f *stale) families() []uint8 {
	var out []uint8
	for _, family := range []struct {
		is4  bool
		kind uint8
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
