package podnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Dial connects to a TCP port on the loopback of a network namespace; "" is the
// host's. IPv4 is tried first.
func Dial(ctx context.Context, netns string, port uint16) (net.Conn, error) {
	if netns == "" {
		return dialLoopback(ctx, port)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() { // ends with ctx
		// Its thread is never given back: it ends with the goroutine.
		runtime.LockOSThread()
		conn, err := dialIn(ctx, netns, port)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

func dialIn(ctx context.Context, netns string, port uint16) (net.Conn, error) {
	ns, err := os.Open(netns)
	if err != nil {
		return nil, fmt.Errorf("open the pod's network: %w", err)
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("enter the pod's network: %w", err)
	}
	return dialLoopback(ctx, port)
}

// dialLoopback makes the socket in the calling thread, so that it belongs to that
// one's network.
func dialLoopback(ctx context.Context, port uint16) (net.Conn, error) {
	var errs []error
	for _, addr := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", netip.AddrPortFrom(addr, port).String())
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
