package nftables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
)

// callTimeout bounds a use of the socket: to look at ten thousand services and to
// write them takes 5 s where two cores have other work, too.
const callTimeout = 60 * time.Second

// The kernel takes a transaction only whole, and as one message to the socket.
const (
	sendBuffer    = 64 << 20
	receiveBuffer = 8 << 20
)

// open returns the connection with its deadline set. The socket is kept: to
// close one of this kind makes the kernel wait until all that was deleted is
// really freed, 5 to 20 ms.
func (b *Backend) open(ctx context.Context) (*nftables.Conn, error) {
	fresh := b.c == nil
	if fresh {
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
	if fresh {
		if err := b.widen(); err != nil {
			return nil, err
		}
	}
	return b.c, ctx.Err()
}

// piece is the most that the kernel puts into one part of a dump.
const piece = 32 << 10

// widen makes the kernel dump in large pieces, which it does when it has seen a
// large buffer on the socket. To go on with a dump it walks a set again from its
// start, so that the usual pieces of 4 KiB cost eight times as many walks.
func (b *Backend) widen() error {
	rc, err := b.raw.SyscallConn()
	if err == nil {
		_, err = b.raw.Send(askGeneration)
	}
	if err != nil {
		return fmt.Errorf("ask nftables: %w", err)
	}
	var got error
	err = rc.Read(func(fd uintptr) bool {
		_, _, got = unix.Recvfrom(int(fd), make([]byte, piece), 0)
		return !errors.Is(got, unix.EAGAIN) && !errors.Is(got, unix.EINTR)
	})
	if err := errors.Join(err, got); err != nil {
		return fmt.Errorf("ask nftables: %w", err)
	}
	return nil
}

// askGeneration asks for the number of the ruleset.
var askGeneration = netlink.Message{
	Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN), Flags: netlink.Request},
	Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
}

// generation is that number: each transaction raises it by one, whosever it is.
func (b *Backend) generation() (uint32, error) {
	answer, err := b.raw.Execute(askGeneration)
	if err != nil {
		return 0, fmt.Errorf("ask nftables for its generation: %w", err)
	}
	for _, m := range answer {
		if len(m.Data) < 4 {
			continue
		}
		a, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			continue
		}
		a.ByteOrder = binary.BigEndian
		for a.Next() {
			if a.Type() == unix.NFTA_GEN_ID {
				return a.Uint32(), a.Err()
			}
		}
	}
	return 0, errors.New("ask nftables for its generation: the answer has none")
}

// manyElements is from how many on it is worth while that nobody listens meanwhile:
// for each the kernel would hold a message of 4 KiB.
const manyElements = 4096

// flush sends what is queued, of which so many are elements.
func (b *Backend) flush(c *nftables.Conn, elements int) error {
	if elements < manyElements {
		return c.Flush()
	}
	since, err := b.generation()
	if err != nil {
		return err
	}
	return b.own.Aside(since, b.generation, func() (int, error) { return 1, c.Flush() })
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
		b.own.Add(nl.Pid)
		b.opens++
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

// refusals are the kernel's answers to what it was asked to hold; others, as
// ENOBUFS, EPERM or a deadline, are about the moment.
var refusals = []error{
	unix.EINVAL, unix.ERANGE, unix.ENOSPC, unix.EMSGSIZE, unix.E2BIG, unix.ENAMETOOLONG, unix.EOPNOTSUPP, unix.EOVERFLOW,
	unix.EMLINK, unix.ELOOP, unix.EEXIST, errUnlike,
}

// judged marks an error that is the kernel's answer to these very rules.
func judged(err error) error {
	if slices.ContainsFunc(refusals, func(r error) bool { return errors.Is(err, r) }) {
		return net.AsRefused(err)
	}
	return err
}

// errUnlike: the kernel said nothing against a table and holds another one.
var errUnlike = errors.New("read the table back")

// moved tells of errors that say: the kernel does not hold what we thought.
func moved(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY)
}
