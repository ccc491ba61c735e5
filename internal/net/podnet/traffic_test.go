package podnet

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"
)

// serve answers on a port in a namespace (nil: the node) with its own name and
// the address of the caller: "name caller-ip".
func serve(t testing.TB, ns *netns, network, name string, port int) {
	t.Helper()
	addr := fmt.Sprintf(":%d", port)
	inside(ns, t, func() error {
		if network == "udp" {
			c, err := net.ListenPacket(network, addr)
			if err != nil {
				return err
			}
			t.Cleanup(func() { c.Close() })
			go serveUDP(c, name)
			return nil
		}
		l, err := net.Listen(network, addr)
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		go serveTCP(l, name)
		return nil
	})
}

func serveTCP(l net.Listener, name string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprint(c, name, " ", callerOf(c.RemoteAddr()))
		c.Close()
	}
}

func serveUDP(c net.PacketConn, name string) {
	b := make([]byte, 100)
	for {
		_, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(fmt.Append(nil, name, " ", callerOf(from)), from)
	}
}

func callerOf(a net.Addr) netip.Addr {
	p, _ := netip.ParseAddrPort(a.String())
	return p.Addr().Unmap()
}

func inside(ns *netns, t testing.TB, fn func() error) {
	t.Helper()
	if ns != nil {
		ns.do(fn)
		return
	}
	must(t, fn())
}

// call asks a server from a namespace (nil: the node) and returns its answer.
func call(t testing.TB, from *netns, network string, to netip.Addr, port int) (string, error) {
	t.Helper()
	return callFrom(t, from, network, nil, to, port)
}

// callFrom does so from an address or a port of its own.
func callFrom(t testing.TB, from *netns, network string, local net.Addr, to netip.Addr, port int) (string, error) {
	t.Helper()
	var answer string
	var callErr error
	inside(from, t, func() error {
		d := net.Dialer{Timeout: 2 * time.Second, LocalAddr: local}
		c, err := d.DialContext(context.Background(), network, netip.AddrPortFrom(to, uint16(port)).String())
		if err != nil {
			callErr = err
			return nil
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		b := make([]byte, 100)
		if network == "udp" {
			_, callErr = c.Write([]byte("x"))
		}
		if callErr == nil {
			var n int
			n, callErr = c.Read(b)
			answer = string(b[:n])
			if callErr == io.EOF {
				callErr = nil
			}
		}
		return nil
	})
	return answer, callErr
}

// wantAnswer checks who answered and whom it saw.
func wantAnswer(t testing.TB, from *netns, network string, to netip.Addr, port int, name string, caller netip.Addr) {
	t.Helper()
	got, err := call(t, from, network, to, port)
	if want := fmt.Sprint(name, " ", caller); err != nil || got != want {
		t.Errorf("call %s %s:%d: got %q (%v), want %q", network, to, port, got, err, want)
	}
}

func wantNoAnswer(t testing.TB, from *netns, network string, to netip.Addr, port int) {
	t.Helper()
	if got, err := call(t, from, network, to, port); err == nil {
		t.Errorf("call %s %s:%d: got %q, want no answer", network, to, port, got)
	}
}

func run(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %v: %w: %s", name, args, err, out)
	}
	return string(out), err
}
