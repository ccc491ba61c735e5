package shimapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Client is a connection to the control socket of one shim. Each method but
// Close uses the connection up: dial again for the next request.
type Client struct {
	conn net.Conn
	r    *bufio.Reader
}

// Dial connects to the shim of a sandbox; errors.Is(err, os.ErrNotExist) or
// ECONNREFUSED mean that there is none.
func Dial(runDir, sandboxID string) (*Client, error) {
	var conn net.Conn
	err := WithSocketPath(runDir, sandboxID, func(path string) error {
		var err error
		conn, err = net.DialTimeout("unix", path, Timeout)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("dial shim of sandbox %s: %w", sandboxID, err)
	}
	return &Client{conn: conn, r: bufio.NewReaderSize(conn, 4096)}, nil
}

// Close ends the connection; a Stream made from it ends as well.
func (c *Client) Close() error { return c.conn.Close() }

// ErrBusy is the shim's answer to exit while a container is left.
var ErrBusy = errors.New("containers are left")

// Exit ends the shim. Without force it refuses with ErrBusy while it has a
// container. When Exit returns nil the shim has taken its sockets and record
// away and is about to end.
func (c *Client) Exit(ctx context.Context, force bool) error {
	_, err := c.do(ctx, Request{Verb: VerbExit, Force: force})
	return err
}

// Stats returns what the shim counts of each container that is not deleted.
func (c *Client) Stats(ctx context.Context) (Stats, error) {
	resp, err := c.do(ctx, Request{Verb: VerbStats})
	if err != nil {
		return Stats{}, err
	}
	if resp.Stats == nil {
		return Stats{}, errors.New("shim sent no stats")
	}
	return *resp.Stats, nil
}

// Resize sets the size of a container's terminal, in characters.
func (c *Client) Resize(ctx context.Context, container string, width, height uint16) error {
	_, err := c.do(ctx, Request{Verb: VerbResize, Container: container, Width: width, Height: height})
	return err
}

// AttachOptions names a container and the streams that are wanted.
type AttachOptions struct {
	Container             string
	Stdin, Stdout, Stderr bool
	TTY                   bool
}

// Attach begins to stream: what the container writes from now on comes as
// frames, what is written to the Stream becomes its stdin. A client that reads
// too slowly is cut off with FrameDropped; the container never waits for it.
// The Stream takes the connection over and ends with Close, or with ctx.
func (c *Client) Attach(ctx context.Context, o AttachOptions) (*Stream, error) {
	_, err := c.do(ctx, Request{
		Verb: VerbAttach, Container: o.Container,
		Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, TTY: o.TTY,
	})
	if err != nil {
		return nil, err
	}
	s := &Stream{conn: c.conn, r: c.r}
	s.stop = context.AfterFunc(ctx, func() { _ = c.conn.Close() })
	return s, nil
}

func (c *Client) do(ctx context.Context, req Request) (Response, error) {
	deadline := time.Now().Add(Timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return Response{}, fmt.Errorf("ask shim to %s: %w", req.Verb, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var resp Response
	err := WriteLine(c.conn, req)
	if err == nil {
		err = ReadLine(c.r, &resp)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return Response{}, fmt.Errorf("ask shim to %s: %w", req.Verb, ctx.Err())
	case err != nil:
		return Response{}, fmt.Errorf("ask shim to %s: %w", req.Verb, err)
	case resp.Error == ErrBusy.Error():
		return Response{}, fmt.Errorf("ask shim to %s: %w", req.Verb, ErrBusy)
	case resp.Error != "":
		return Response{}, fmt.Errorf("ask shim to %s: %s", req.Verb, resp.Error)
	}
	return resp, c.conn.SetDeadline(time.Time{})
}

// Stream carries the frames of an attached container.
type Stream struct {
	conn net.Conn
	r    *bufio.Reader
	buf  []byte
	stop func() bool

	mu   sync.Mutex // orders writers of stdin
	head [FrameHeader]byte
}

// ErrDropped ends a stream whose reader was too slow.
var ErrDropped = errors.New("attached client read too slowly and was cut off")

// Read returns the next piece of output and whether it is stderr's; the bytes
// hold until the next call. io.EOF after the container closed its output.
func (s *Stream) Read() (data []byte, stderr bool, err error) {
	for {
		t, payload, err := ReadFrame(s.r, s.buf)
		if err != nil {
			return nil, false, err
		}
		if cap(payload) > cap(s.buf) {
			s.buf = payload
		}
		switch t {
		case FrameStdout, FrameStderr:
			return payload, t == FrameStderr, nil
		case FrameDropped:
			return nil, false, ErrDropped
		case FrameExit:
			return nil, false, io.EOF
		}
	}
}

// Write sends p to the container's stdin.
func (s *Stream) Write(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p) > 0 {
		part := p[:min(len(p), FrameMax)]
		if err := s.send(FrameStdin, part); err != nil {
			return n, err
		}
		n += len(part)
		p = p[len(part):]
	}
	return n, nil
}

// CloseStdin tells the shim that no more stdin comes from this client; it
// closes the container's stdin only where the pod asked for stdinOnce.
func (s *Stream) CloseStdin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.send(FrameCloseStdin, nil)
}

func (s *Stream) send(t FrameType, p []byte) error {
	PutFrameHeader(s.head[:], t, len(p))
	bufs := net.Buffers{s.head[:], p}
	if _, err := bufs.WriteTo(s.conn); err != nil {
		return fmt.Errorf("write to attached container: %w", err)
	}
	return nil
}

// Close leaves the container.
func (s *Stream) Close() error {
	s.stop()
	return s.conn.Close()
}
