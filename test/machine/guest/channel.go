package guest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"nodeagent/test/machine/guest/wire"
)

// errGone is what a command gets whose guest was reset or lost its power.
var errGone = errors.New("the guest went down")

// channel is the host's end of the wire to one QEMU process.
type channel struct {
	conn net.Conn
	wmu  sync.Mutex
	out  *wire.Writer

	mu      sync.Mutex
	next    uint32
	streams map[uint32]*stream
	boot    string
	booted  chan struct{} // closed and replaced at each new boot id
	err     error         // why the channel has ended
}

// stream is one request in flight.
type stream struct {
	out  io.Writer
	done chan struct{}
	end  wire.Ended
	err  error
}

func newChannel(conn net.Conn) *channel {
	c := &channel{conn: conn, out: wire.NewWriter(conn), streams: map[uint32]*stream{}, booted: make(chan struct{})}
	go c.read()
	return c
}

// read ends when QEMU closes its socket.
func (c *channel) read() {
	r := wire.NewReader(c.conn)
	for {
		f, err := r.Read()
		if err != nil {
			c.close(errGone)
			return
		}
		switch f.Kind {
		case wire.Boot:
			var b wire.Booted
			if json.Unmarshal(f.Payload, &b) == nil && c.newBoot(b.ID) {
				// The guest's agent has just started: its clock may be off.
				go func() { _ = c.hello() }() // ends with the write
			}
		case wire.Data:
			if s := c.stream(f.Stream); s != nil {
				_, _ = s.out.Write(f.Payload)
			}
		case wire.Exit:
			if s := c.drop(f.Stream); s != nil {
				if err := json.Unmarshal(f.Payload, &s.end); err != nil {
					s.err = err
				}
				close(s.done)
			}
		}
	}
}

// newBoot tells whether this boot was not known, and ends what the last one ran.
func (c *channel) newBoot(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.boot == id {
		return false
	}
	c.fail(errGone)
	c.boot = id
	close(c.booted)
	c.booted = make(chan struct{})
	return true
}

// fail ends every stream. The caller holds mu.
func (c *channel) fail(err error) {
	for _, s := range c.streams {
		s.err = err
		close(s.done)
	}
	clear(c.streams)
}

func (c *channel) close(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		c.fail(err)
		close(c.booted)
	}
	c.conn.Close()
}

func (c *channel) stream(id uint32) *stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams[id]
}

func (c *channel) drop(id uint32) *stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[id]
	delete(c.streams, id)
	return s
}

func (c *channel) hello() error {
	seed := make([]byte, 64)
	_, _ = rand.Read(seed)
	return c.send(wire.Hello, 0, wire.Greeting{Time: time.Now().UnixNano(), Seed: seed})
}

func (c *channel) send(k wire.Kind, id uint32, v any) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.out.WriteJSON(k, id, v)
}

func (c *channel) data(f wire.Frame) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.out.Write(f)
}

// waitBoot waits for a boot other than the given one, and returns its id.
func (c *channel) waitBoot(ctx context.Context, not string) (string, error) {
	for {
		c.mu.Lock()
		boot, err, next := c.boot, c.err, c.booted
		c.mu.Unlock()
		if err != nil {
			return "", err
		}
		if boot != "" && boot != not {
			return boot, nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return "", fmt.Errorf("wait for the guest to boot: %w", ctx.Err())
		}
	}
}

// do runs one request to its end. Output goes to out as it comes; in, if not
// nil, is sent. When ctx ends the command is killed.
func (c *channel) do(ctx context.Context, q wire.Request, in io.Reader, out io.Writer) (wire.Ended, error) {
	s := &stream{out: out, done: make(chan struct{})}
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return wire.Ended{}, c.err
	}
	c.next++
	id := c.next
	c.streams[id] = s
	c.mu.Unlock()
	defer c.drop(id)
	if err := c.send(wire.Start, id, q); err != nil {
		return wire.Ended{}, fmt.Errorf("send a request to the guest: %w", err)
	}
	if err := c.feed(id, s, in); err != nil {
		return wire.Ended{}, err
	}
	select {
	case <-s.done:
		return s.end, s.err
	case <-ctx.Done():
	}
	_ = c.send(wire.Kill, id, struct{}{})
	select {
	case <-s.done:
	case <-time.After(5 * time.Second):
	}
	return wire.Ended{}, ctx.Err()
}

// feed sends in, and its end.
func (c *channel) feed(id uint32, s *stream, in io.Reader) error {
	if in == nil {
		in = bytes.NewReader(nil)
	}
	buf := make([]byte, wire.MaxPayload)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			if err := c.data(wire.Frame{Kind: wire.Data, Stream: id, Payload: buf[:n]}); err != nil {
				return fmt.Errorf("send to the guest: %w", err)
			}
		}
		select {
		case <-s.done:
			return nil
		default:
		}
		if errors.Is(err, io.EOF) {
			return c.send(wire.EOF, id, struct{}{})
		}
		if err != nil {
			return err
		}
	}
}
