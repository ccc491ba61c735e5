package bed

import (
	"context"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Connect connects to an address inside the bed, for clients in this process: a
// http.Transport's DialContext, a rest.Config's Dial. A connection that hangs
// holds up nobody else: each has a thread of its own until it is made.
func (b *Bed) Connect(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) == nil {
		// A name would be asked for from other threads, which are outside.
		return nil, fmt.Errorf("connect to %s in the bed: not an IP address", address)
	}
	t, err := newThread(func() error {
		ns, err := unix.Open(b.Netns(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open the bed's network namespace: %w", err)
		}
		defer unix.Close(ns)
		return unix.Setns(ns, unix.CLONE_NEWNET)
	})
	if err != nil {
		return nil, err
	}
	defer t.close()
	var conn net.Conn
	err = t.do(func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}
