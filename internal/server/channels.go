package server

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// closing is the number in place of a channel's with which a client of the fifth
// version says that it writes nothing more to the channel that follows.
const closing = 255

// farewell is how long a client has to answer the end of a WebSocket.
const farewell = 5 * time.Second

// channels are streams over one WebSocket: each message begins with the number of its
// channel (k8s.io/streaming's wsstream has the words of it, and holds whole messages,
// of up to 32 MiB each). Here a message is handed on as it comes, so that its size
// costs nothing. A channel that nobody reads holds the others up.
type channels struct {
	conn   *websocket.Conn
	idle   time.Duration // how long nothing may be said
	base64 bool          // digits and base64 in place of bytes
	halves bool          // the client can close one channel
	all    []channel
	done   chan struct{} // closed when nothing is read any more

	writing sync.Mutex
	frame   []byte // of one message, kept for the next

	mu    sync.Mutex // never held while the client is waited for
	ended bool
}

// channel is one of them: read is what the client writes.
type channel struct {
	of  *channels
	num byte
	in  *io.PipeReader // nil: what the client writes is for nobody
	to  *io.PipeWriter
}

// openChannels makes a WebSocket of the request. It has answered when there is none.
// No version may be asked for, and is the first one then.
func (a *NodeAPI) openChannels(w http.ResponseWriter, r *http.Request, versions []string, readable ...bool) (*channels, bool) {
	asked := websocket.Subprotocols(r)
	if len(asked) > 0 && !slices.ContainsFunc(asked, func(v string) bool { return slices.Contains(versions, v) }) {
		http.Error(w, fmt.Sprintf("of the WebSocket protocols that are asked for none is known here: %s are", strings.Join(versions, ", ")), http.StatusBadRequest)
		return nil, false
	}
	conn, err := a.webSocket(w, r, versions)
	if err != nil {
		return nil, false
	}
	c := &channels{conn: conn, idle: orUsual(a.cfg.StreamIdle, idleStreams), done: make(chan struct{}),
		base64: strings.Contains(conn.Subprotocol(), "base64."), halves: strings.HasPrefix(conn.Subprotocol(), "v5.")}
	for i, wanted := range readable {
		one := channel{of: c, num: byte(i)}
		if wanted {
			one.in, one.to = io.Pipe()
		}
		c.all = append(c.all, one)
	}
	go c.read() // ends with end
	return c, true
}

// webSocket upgrades a request. Where a page came from says nothing of who asks: no
// cookie counts here.
func (a *NodeAPI) webSocket(w http.ResponseWriter, r *http.Request, versions []string) (*websocket.Conn, error) {
	u := websocket.Upgrader{
		HandshakeTimeout: a.limits.written, ReadBufferSize: 4 << 10, WriteBufferSize: 4 << 10,
		Subprotocols: versions, CheckOrigin: func(*http.Request) bool { return true },
	}
	return u.Upgrade(w, r, nil)
}

// while is ctx until the client is gone.
func (c *channels) while(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with either
		defer cancel()
		select {
		case <-c.done:
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// read hands on what the client says until it goes. Then every channel has ended.
func (c *channels) read() {
	defer close(c.done)
	defer func() {
		for _, one := range c.all {
			if one.to != nil {
				_ = one.to.Close()
			}
		}
	}()
	for {
		c.alive()
		_, message, err := c.conn.NextReader()
		if err != nil {
			return
		}
		if err := c.take(message); err != nil {
			return
		}
	}
}

// take hands on one message. An error is the connection's, or a client's that knows
// the protocol no better.
func (c *channels) take(message io.Reader) error {
	var num [2]byte
	switch _, err := io.ReadFull(message, num[:1]); {
	case errors.Is(err, io.EOF):
		return nil // some say nothing to show that they are there
	case err != nil:
		return err
	}
	if c.halves && num[0] == closing {
		if _, err := io.ReadFull(message, num[1:]); err != nil || int(num[1]) >= len(c.all) {
			return errors.New("a channel that is none is closed")
		}
		if to := c.all[num[1]].to; to != nil {
			_ = to.Close()
		}
		return nil
	}
	if c.base64 {
		num[0] -= '0'
		message = base64.NewDecoder(base64.StdEncoding, message)
	}
	if int(num[0]) >= len(c.all) || c.all[num[0]].to == nil {
		return nil // NextReader passes over the rest
	}
	_, err := io.Copy(c.all[num[0]].to, reading{c, message})
	if errors.Is(err, io.ErrClosedPipe) {
		return nil // nobody reads it any more
	}
	return err
}

// reading is a message that comes in pieces, each of which shows that somebody is there.
type reading struct {
	of   *channels
	from io.Reader
}

// Read implements io.Reader.
func (r reading) Read(p []byte) (int, error) {
	r.of.alive()
	return r.from.Read(p)
}

// alive gives the client its time anew.
func (c *channels) alive() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		_ = c.conn.SetReadDeadline(time.Now().Add(c.idle))
	}
}

// Read implements io.Reader.
func (c channel) Read(p []byte) (int, error) { return c.in.Read(p) }

// Write implements io.Writer: one message, in one frame.
func (c channel) Write(p []byte) (int, error) {
	of := c.of
	of.writing.Lock()
	defer of.writing.Unlock()
	kind := websocket.BinaryMessage
	if of.base64 {
		kind = websocket.TextMessage
		of.frame = base64.StdEncoding.AppendEncode(append(of.frame[:0], '0'+c.num), p)
	} else {
		of.frame = append(append(of.frame[:0], c.num), p...)
	}
	of.alive()
	_ = of.conn.SetWriteDeadline(time.Now().Add(of.idle))
	if err := of.conn.WriteMessage(kind, of.frame); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close implements io.Closer: nothing more is read.
func (c channel) Close() error {
	if c.in != nil {
		_ = c.in.Close()
	}
	return nil
}

// end closes all channels. The client is told, behind all that was written, and has a
// time to answer before the connection is given up: one that is closed while the client
// still writes could take the last words with it.
func (c *channels) end() {
	for _, one := range c.all {
		_ = one.Close()
	}
	until := time.Now().Add(farewell)
	c.mu.Lock()
	c.ended = true
	_ = c.conn.SetReadDeadline(until)
	c.mu.Unlock()
	_ = c.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), until)
	<-c.done
	_ = c.conn.Close()
}
