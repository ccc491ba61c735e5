package nftables

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// callTimeout bounds a use of the socket; ten thousand services take a tenth.
const callTimeout = 10 * time.Second

// The kernel takes a transaction only whole, and as one message to the socket.
const (
	sendBuffer    = 64 << 20
	receiveBuffer = 8 << 20
)

// open returns the connection with its deadline set. The socket is kept: to
// close one of this kind makes the kernel wait until all that was deleted is
// really freed, 5 to 20 ms.
func (b *Backend) open(ctx context.Context) (*nftables.Conn, error) {
	if b.c == nil {
		c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
			b.raw = c
			return errors.Join(c.SetReadBuffer(receiveBuffer), c.SetWriteBuffer(sendBuffer))
		}))
		if err != nil {
			return nil, fmt.Errorf("open nftables socket: %w", err)
		}
		b.c = c
		if err := b.noteName(); err != nil {
			b.Close()
			return nil, err
		}
	}
	limit := time.Now().Add(callTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(limit) {
		limit = d
	}
	if err := b.raw.SetDeadline(limit); err != nil {
		return nil, fmt.Errorf("bound nftables socket: %w", err)
	}
	return b.c, ctx.Err()
}

// noteName asks by which name the kernel will tell others of our changes.
func (b *Backend) noteName() error {
	rc, err := b.raw.SyscallConn()
	if err != nil {
		return fmt.Errorf("name nftables socket: %w", err)
	}
	var sa unix.Sockaddr
	var saErr error
	if err := rc.Control(func(fd uintptr) { sa, saErr = unix.Getsockname(int(fd)) }); err != nil || saErr != nil {
		return fmt.Errorf("name nftables socket: %w", errors.Join(err, saErr))
	}
	if nl, ok := sa.(*unix.SockaddrNetlink); ok {
		b.port.Store(nl.Pid)
	}
	return nil
}

// end notes an error: what the kernel holds is not known then, and an answer
// may still be in the socket.
func (b *Backend) end(err error) error {
	if err != nil {
		b.known = false
		b.Close()
	}
	return err
}

// Close frees the socket. The rules stay.
func (b *Backend) Close() {
	if b.c != nil {
		_ = b.c.CloseLasting()
		b.c, b.raw = nil, nil
	}
}

// moved tells of errors that say: the kernel does not hold what we thought.
func moved(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY)
}
