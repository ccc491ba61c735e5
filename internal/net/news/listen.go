// Package news owns listening to what the kernel tells of its network by netlink's
// multicast groups. It never judges a message: who listens does. Listen runs in its
// caller's goroutine, as do the functions that it calls. Own may be used from any.
package news

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// buffer is how many bytes the kernel may have in store for a listener: others, too,
// may change ten thousand services at once.
const buffer = 8 << 20

// Listen gives each message of a group to hear until ctx ends, which is no error,
// or the socket fails. It calls unsure when it has begun to listen and when
// messages were lost: what happened before is not known then.
func Listen(ctx context.Context, family int, group uint32, hear func(netlink.Message), unsure func()) error {
	return listen(ctx, nil, family, group, hear, unsure)
}

func listen(ctx context.Context, own *Own, family int, group uint32, hear func(netlink.Message), unsure func()) error {
	c, err := netlink.Dial(family, nil)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer func() {
		if stop() {
			c.Close()
		}
	}()
	own.begin(c, group)
	defer own.end(c)
	if err := errors.Join(c.SetReadBuffer(buffer), c.JoinGroup(group)); err != nil && ctx.Err() == nil {
		return err
	}
	unsure()
	for {
		msgs, err := c.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			unsure()
		case errors.Is(err, os.ErrDeadlineExceeded): // Own interrupts who may have missed something
			if err := c.SetReadDeadline(time.Time{}); err != nil && ctx.Err() == nil {
				return err
			}
			unsure()
		case err != nil:
			return err
		}
		for _, m := range msgs {
			hear(m)
		}
	}
}
