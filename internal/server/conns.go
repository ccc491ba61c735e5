package server

import (
	"container/list"
	"context"
	"net"
	"sync"
)

// conns accepts connections and bounds them. A connection is a stranger's until a
// request on it was allowed. Of strangers' there are few: where there are too
// many, the oldest of the address that has most is closed, so that a flood pushes
// out itself, and somebody honest has the time of many newcomers to say who it is.
// Where a flood has an address a connection, that is the oldest of all.
type conns struct {
	net.Listener
	max, maxStrangers int

	mu        sync.Mutex
	came      uint64 // connections ever
	all       int
	strangers int
	by        map[string]*list.List // of *conn by address, the oldest first
}

func newConns(limit, strangers int) *conns {
	return &conns{max: limit, maxStrangers: strangers, by: map[string]*list.List{}}
}

// conn is one of them.
type conn struct {
	net.Conn
	of      *conns
	address string
	number  uint64        // of the connections ever
	place   *list.Element // among the strangers; nil: proven or closed
	closed  bool
}

// Accept implements net.Listener.
func (l *conns) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: raw, of: l, address: address(raw)}
		out, ok := l.admit(c)
		if out != nil {
			_ = out.Close()
		}
		if ok {
			return c, nil
		}
		_ = raw.Close()
	}
}

func address(c net.Conn) string {
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		return ""
	}
	return host
}

// admit counts a newcomer and names a stranger who has to go for it. Not ok: all
// places belong to clients with rights.
func (l *conns) admit(c *conn) (out *conn, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.strangers >= l.maxStrangers || l.all >= l.max {
		if out = l.oldest(); out == nil {
			return nil, false
		}
		l.leave(out) // at once: Close may come late
		l.all--
		out.closed = true
	}
	mine := l.by[c.address]
	if mine == nil {
		mine = list.New()
		l.by[c.address] = mine
	}
	l.came++
	c.number, c.place = l.came, mine.PushBack(c)
	l.strangers++
	l.all++
	return out, true
}

// oldest is the oldest stranger of the addresses that have most of them. There are
// at most as many addresses as strangers.
func (l *conns) oldest() (out *conn) {
	most := 0
	for _, of := range l.by {
		first := of.Front().Value.(*conn) //nolint:forcetypeassert // nothing else is in the list
		if of.Len() > most || of.Len() == most && first.number < out.number {
			most, out = of.Len(), first
		}
	}
	return out
}

// leave takes c out of the strangers. The lock is held.
func (l *conns) leave(c *conn) {
	if c.place == nil {
		return
	}
	mine := l.by[c.address]
	if mine.Remove(c.place); mine.Len() == 0 {
		delete(l.by, c.address)
	}
	c.place = nil
	l.strangers--
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.of.mu.Lock()
	if !c.closed {
		c.closed = true
		c.of.leave(c)
		c.of.all--
	}
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// connKey is where a request's context has its connection.
type connKey struct{}

// withConn remembers the connection below TLS.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if over, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = over.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

// proven says that a request on the connection was allowed.
func proven(ctx context.Context) {
	c, ok := ctx.Value(connKey{}).(*conn)
	if !ok {
		return
	}
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.of.leave(c)
}
