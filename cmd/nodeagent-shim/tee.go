//go:build linux

package main

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"nodeagent/internal/shimapi"
)

const (
	clientMax    = 1 << 20 // bytes that may wait for one attached client
	clientsMax   = 16      // attached clients of one container
	clientStalls = 10 * time.Second
)

// tee copies a container's output to the clients that are attached to it.
type tee struct {
	count   atomic.Int32 // of clients; read without the lock by each write
	mu      sync.Mutex
	clients []*client
	ended   bool
}

// client is one attached connection. Its goroutine writes; who reads too
// slowly is cut off, and nobody waits for it.
type client struct {
	conn           net.Conn
	stdout, stderr bool

	mu      sync.Mutex
	queue   [][]byte // whole frames
	waiting int      // bytes in queue
	last    bool     // the frame at the end of queue is the last one
	wake    chan struct{}
}

func (t *tee) write(kind shimapi.FrameType, data []byte) {
	if t.count.Load() == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.clients {
		if (kind == shimapi.FrameStdout && c.stdout) || (kind == shimapi.FrameStderr && c.stderr) {
			c.send(kind, data)
		}
	}
}

// add attaches a client; false when the output has ended or there are too many.
func (t *tee) add(c *client) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended || len(t.clients) >= clientsMax {
		return false
	}
	t.clients = append(t.clients, c)
	t.count.Store(int32(len(t.clients)))
	return true
}

func (t *tee) remove(c *client) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.clients {
		if t.clients[i] == c {
			t.clients = append(t.clients[:i], t.clients[i+1:]...)
			break
		}
	}
	t.count.Store(int32(len(t.clients)))
}

// end tells every client that nothing follows.
func (t *tee) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	for _, c := range t.clients {
		c.send(shimapi.FrameExit, nil)
	}
}

func (c *client) send(kind shimapi.FrameType, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last {
		return
	}
	if c.waiting+len(data) > clientMax {
		kind, data = shimapi.FrameDropped, nil
	}
	c.last = kind == shimapi.FrameDropped || kind == shimapi.FrameExit
	frame := make([]byte, shimapi.FrameHeader+len(data))
	shimapi.PutFrameHeader(frame, kind, len(data))
	copy(frame[shimapi.FrameHeader:], data)
	c.queue = append(c.queue, frame)
	c.waiting += len(frame)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run writes until the last frame, an error, or gone is closed.
func (c *client) run(gone <-chan struct{}) {
	for {
		select {
		case <-gone:
			return
		case <-c.wake:
		}
		for {
			frame, last := c.next()
			if frame == nil {
				break
			}
			_ = c.conn.SetWriteDeadline(time.Now().Add(clientStalls))
			if _, err := c.conn.Write(frame); err != nil || last {
				return
			}
		}
	}
}

func (c *client) next() (frame []byte, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		c.queue = nil
		return nil, false
	}
	frame = c.queue[0]
	c.queue = c.queue[1:]
	c.waiting -= len(frame)
	return frame, c.last && len(c.queue) == 0
}
