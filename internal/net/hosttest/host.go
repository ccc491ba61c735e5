// Package hosttest holds what tests of the service proxy's backends share: hosts
// in network namespaces that are wired to the node, which is the namespace of
// the test itself, and the tests by packets that every backend has to pass. It
// wants to run in a namespace without an uplink (internal/test/apart).
//
// No product code imports it. A Host is used by one test, by any of its goroutines:
// its work is done by some threads of its own.
package hosttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	stdnet "net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nodeagent/internal/test/need"
)

// Host is a network namespace with one interface to the node, which is the
// namespace of the test itself. Its work is done by threads that live there.
type Host struct {
	Name     string
	IP4, IP6 netip.Addr
	GW4, GW6 netip.Addr // the node's addresses on the link
	jobs     chan func()
}

// threads is how many a host has: so many calls of it can wait for an answer at once.
const threads = 16

// Wire makes the hosts of a test: one outside, three pods on this node, two
// elsewhere. All go away with the test.
func Wire(t testing.TB) map[string]*Host {
	t.Helper()
	need.Have(t, need.Root)
	link, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(link))
	for _, k := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		must(t, os.WriteFile("/proc/sys/"+k, []byte("1"), 0o644))
	}
	// The kernel sends few ICMP errors, to one host and in all; a test gets many in a second.
	for _, k := range []string{"net/ipv4/icmp_ratelimit", "net/ipv4/icmp_ratemask", "net/ipv6/icmp/ratelimit"} {
		must(t, os.WriteFile("/proc/sys/"+k, []byte("0"), 0o644))
	}
	hosts := map[string]*Host{}
	for i, name := range []string{"outside", "here1", "here2", "here3", "there1", "there2"} {
		net4, net6 := fmt.Sprintf("10.0.%d.", i), fmt.Sprintf("fd10:0:0:%d::", i)
		if name == "outside" {
			net4, net6 = "192.168.0.", "fd00::"
		}
		hosts[name] = newHost(t, name, net4, net6)
	}
	// What the node calls has a way, or it would not even try.
	for _, gw := range []netip.Addr{hosts["outside"].IP4, hosts["outside"].IP6} {
		must(t, netlink.RouteReplace(&netlink.Route{Gw: gw.AsSlice()}))
	}
	return hosts
}

func newHost(t testing.TB, name, net4, net6 string) *Host {
	t.Helper()
	h := &Host{
		Name: name, jobs: make(chan func()),
		GW4: netip.MustParseAddr(net4 + "1"), IP4: netip.MustParseAddr(net4 + "9"),
		GW6: netip.MustParseAddr(net6 + "1"), IP6: netip.MustParseAddr(net6 + "9"),
	}
	t.Cleanup(func() { close(h.jobs) })
	ns := h.live(t, -1)
	defer ns.Close()
	for range threads - 1 {
		h.live(t, int(ns.Fd())).Close()
	}
	la := netlink.NewLinkAttrs()
	la.Name = "v-" + name
	v := &netlink.Veth{LinkAttrs: la, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns.Fd())}
	must(t, netlink.LinkAdd(v))
	t.Cleanup(func() { _ = netlink.LinkDel(v) })
	must(t, raise(la.Name, h.GW4, h.GW6))
	var err error
	h.Do(func() {
		err = errors.Join(raise("lo"), raise("eth0", h.IP4, h.IP6),
			netlink.RouteAdd(&netlink.Route{Gw: h.GW4.AsSlice()}), netlink.RouteAdd(&netlink.Route{Gw: h.GW6.AsSlice()}))
	})
	must(t, err)
	return h
}

// live starts one of its threads: in a namespace, or the first in a new one; and
// returns that.
func (h *Host) live(t testing.TB, fd int) (ns *os.File) {
	t.Helper()
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread goes, and with the last one the namespace
		var err error
		if fd >= 0 {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
		} else {
			err = unix.Unshare(unix.CLONE_NEWNET)
		}
		if err == nil {
			ns, err = os.Open("/proc/thread-self/ns/net")
		}
		ready <- err
		for f := range h.jobs {
			f()
		}
	}()
	must(t, <-ready)
	return ns
}

// raise gives addresses to an interface and brings it up; without duplicate
// address detection, which takes seconds.
func raise(name string, addrs ...netip.Addr) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		bits := 24
		if a.Is6() {
			bits = 64
		}
		n := &stdnet.IPNet{IP: a.AsSlice(), Mask: stdnet.CIDRMask(bits, a.BitLen())}
		if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: n, Flags: unix.IFA_F_NODAD}); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}

// Do runs f on a thread in the host; a nil host is the node.
func (h *Host) Do(f func()) {
	if h == nil {
		f()
		return
	}
	done := make(chan struct{})
	h.jobs <- func() { f(); close(done) }
	<-done
}

func (h *Host) Addr(v6 bool) netip.Addr {
	switch {
	case h == nil && v6:
		return netip.MustParseAddr("fd00::1")
	case h == nil:
		return netip.MustParseAddr("192.168.0.1")
	case v6:
		return h.IP6
	}
	return h.IP4
}

// Serve answers on a port, over TCP, UDP and SCTP, with its name and the caller's
// address; a TCP caller that writes is answered again and again.
func (h *Host) Serve(t testing.TB, port int) {
	t.Helper()
	var err error
	h.Do(func() {
		var l stdnet.Listener
		var p stdnet.PacketConn
		if l, err = stdnet.Listen("tcp", fmt.Sprintf(":%d", port)); err != nil {
			return
		}
		if p, err = stdnet.ListenPacket("udp", fmt.Sprintf(":%d", port)); err != nil {
			l.Close()
			return
		}
		var all sync.WaitGroup
		ctx, end := context.WithCancel(context.Background())
		t.Cleanup(func() { end(); l.Close(); p.Close(); all.Wait() })
		all.Go(func() { h.serveTCP(ctx, l, &all) })
		all.Go(func() { h.serveUDP(p) })
		err = h.serveSCTP(t, port)
	})
	must(t, err)
}

// says is what it answers to a caller: who it is, and whom it sees.
func (h *Host) says(caller stdnet.Addr) string {
	a, err := netip.ParseAddr(caller.String())
	if err != nil {
		p, _ := netip.ParseAddrPort(caller.String())
		a = p.Addr()
	}
	return h.Name + " " + a.Unmap().String()
}

// serveTCP ends its connections with the test: a caller's farewell may be lost with the
// rules that led it here.
func (h *Host) serveTCP(ctx context.Context, l stdnet.Listener, all *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		all.Go(func() {
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			b := make([]byte, 10)
			for {
				if _, err := c.Write([]byte(h.says(c.RemoteAddr()))); err != nil {
					return
				}
				if _, err := c.Read(b); err != nil {
					return
				}
			}
		})
	}
}

func (h *Host) serveUDP(p stdnet.PacketConn) {
	b := make([]byte, 10)
	for {
		_, from, err := p.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = p.WriteTo([]byte(h.says(from)), from)
	}
}

// Dial opens a connection from the host.
func (h *Host) Dial(network string, to netip.AddrPort, wait time.Duration) (c stdnet.Conn, err error) {
	h.Do(func() {
		d := stdnet.Dialer{Timeout: wait}
		c, err = d.DialContext(context.Background(), network, to.String())
	})
	return c, err
}

// Answers that are none.
const (
	Refused = "refused"
	Dropped = "dropped"
)

// Call asks and returns the answer, or that it was refused or dropped.
func (h *Host) Call(network string, to netip.AddrPort, wait time.Duration) string {
	call := h.callStream
	if network == "sctp" {
		call = func(_ string, to netip.AddrPort, wait time.Duration) (string, error) { return h.callSCTP(to, wait) }
	}
	says, err := call(network, to, wait)
	if err != nil {
		return outcome(err)
	}
	return says
}

// outcome is what an error of a call says of its fate.
func outcome(err error) string {
	var timeout stdnet.Error
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return Refused
	case errors.As(err, &timeout) && timeout.Timeout():
		return Dropped
	case errors.Is(err, unix.EPERM):
		return unix.EPERM.Error()
	}
	return err.Error()
}

// callStream asks over TCP or UDP.
func (h *Host) callStream(network string, to netip.AddrPort, wait time.Duration) (string, error) {
	c, err := h.Dial(network, to, wait)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(wait))
	if network == "udp" {
		if _, err := c.Write([]byte("x")); err != nil {
			return "", err
		}
	}
	b := make([]byte, 200)
	n, err := c.Read(b)
	if err == io.EOF {
		err = nil
	}
	return string(b[:n]), err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
