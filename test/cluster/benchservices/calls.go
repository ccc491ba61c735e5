package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/test/measure"
)

// answer makes every endpoint's address one of the namespace, where one server tells
// who calls it which address was called.
func (b *bench) answer(ctx context.Context) error {
	if _, err := b.bed.Run(ctx, "ip", "route", "add", "local", endpoints, "dev", "lo"); err != nil {
		return err
	}
	var l net.Listener
	err := b.bed.Do(func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(ctx, "tcp4", fmt.Sprintf("0.0.0.0:%d", serverPort))
		return err
	})
	if err != nil {
		return fmt.Errorf("listen at the endpoints' addresses: %w", err)
	}
	context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				go tell(c)
			}
		}
	}()
	return nil
}

// tell tells who calls which address was called, and stays until the caller goes.
func tell(c net.Conn) {
	defer c.Close()
	a, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return
	}
	_ = c.SetDeadline(time.Now().Add(changeLimit))
	if _, err := c.Write(a.Addr().AsSlice()); err == nil {
		_, _ = c.Read(make([]byte, 1))
	}
}

const (
	pace = time.Millisecond // between two calls
	open = 64               // calls that wait at a time: until a rule is there they wait for nobody
)

// call begins a connection from inside the bed.
func call(to netip.AddrPort, flags int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|flags, 0)
	if err != nil {
		return -1, err
	}
	// It ends at once: no port waits for late packets.
	err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	}
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// until calls an address until one of some endpoints answers, and returns when it did.
func (b *bench) until(ctx context.Context, to netip.AddrPort, by ...netip.Addr) (at time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, changeLimit)
	defer cancel()
	err = b.bed.Do(func() error {
		var c caller
		defer c.close()
		for ctx.Err() == nil {
			begun := time.Now()
			c.begin(to)
			for left := pace; left > 0; left = pace - time.Since(begun) {
				who, err := c.listen(left)
				if err != nil {
					return err
				}
				for _, a := range by {
					if a == who {
						at = time.Now()
						return nil
					}
				}
			}
		}
		return fmt.Errorf("wait until %s is answered by %v: %w", to, by, ctx.Err())
	})
	return at, err
}

// caller has the calls that wait.
type caller struct{ fds []unix.PollFd }

// begin begins another call. One that is refused counts for nothing.
func (c *caller) begin(to netip.AddrPort) {
	if fd, err := call(to, unix.SOCK_NONBLOCK); err == nil {
		c.fds = append(c.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	if len(c.fds) > open {
		c.end(0)
	}
}

func (c *caller) end(i int) {
	unix.Close(int(c.fds[i].Fd))
	c.fds = append(c.fds[:i], c.fds[i+1:]...)
}

func (c *caller) close() {
	for len(c.fds) > 0 {
		c.end(0)
	}
}

// listen waits for an answer for some time and returns who answers; nobody: no address.
func (c *caller) listen(wait time.Duration) (netip.Addr, error) {
	limit := unix.NsecToTimespec(wait.Nanoseconds())
	if _, err := unix.Ppoll(c.fds, &limit, nil); err != nil && !errors.Is(err, unix.EINTR) {
		return netip.Addr{}, fmt.Errorf("wait for an answer: %w", err)
	}
	for i := range c.fds {
		if c.fds[i].Revents == 0 {
			continue
		}
		var text [4]byte
		n, err := unix.Read(int(c.fds[i].Fd), text[:])
		c.end(i)
		if err == nil && n == len(text) {
			return netip.AddrFrom4(text), nil
		}
		return netip.Addr{}, nil
	}
	return netip.Addr{}, nil
}

// looked is how many services are called until they answer, before there are rules: of such
// a call the kernel keeps for two minutes that it is led nowhere, and another one from the
// same port would be led there, too.
const looked = 20

// lookedAt is the k-th of them.
func lookedAt(k, n int) int { return (n - 1) * (k + 1) / looked }

// served waits until services all over the range are answered, and returns when the
// last was.
func (b *bench) served(ctx context.Context, n int) (last time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for k := range looked {
		i := lookedAt(k, n)
		for last = (time.Time{}); last.IsZero() && err == nil; {
			last, err = b.until(ctx, serviceAddress(i), usual(i)...)
			if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
				err = nil // it may take longer than a change
			}
		}
		if err != nil {
			return last, err
		}
	}
	return last, nil
}

// connections measures how much longer connect(2) takes to a service than to one of
// its endpoints, over services all over the range. Ours has to serve each of them; of
// kube-proxy's, those that were not are counted, and it is said.
func (b *bench) connections(ctx context.Context, s *side, v *values, n int) error {
	if err := measure.Pause(ctx, settle); err != nil {
		return err
	}
	var by, direct []float64
	missed, before := 0, map[int]bool{}
	for k := range looked {
		before[lookedAt(k, n)] = true
	}
	err := b.bed.Do(func() error {
		for k := range b.calls {
			i := k * 7919 % n
			if before[i] {
				i--
			}
			for _, way := range []struct {
				to  netip.AddrPort
				all *[]float64
			}{{serviceAddress(i), &by}, {netip.AddrPortFrom(endpointAddress(i, k%each), serverPort), &direct}} {
				begun := time.Now()
				fd, err := call(way.to, 0)
				took := time.Since(begun)
				if err != nil && s.name == peerName && missed < b.calls/10 {
					b.say(fmt.Sprintf("%s: connect to %s after %s: %v", s.name, way.to, took.Round(time.Millisecond), err))
					missed++
					continue
				}
				if err != nil {
					return fmt.Errorf("connect to %s: %w", way.to, err)
				}
				unix.Close(fd)
				*way.all = append(*way.all, took.Seconds())
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	v.add(extra, measure.Median(by)-measure.Median(direct))
	return nil
}
