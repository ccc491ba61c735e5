//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"time"

	"nodeagent/internal/shimapi"
)

// attach streams between a client and a container until either leaves.
func (s *service) attach(conn net.Conn, r *bufio.Reader, req shimapi.Request) {
	c := s.find(req.Container)
	if err := attachable(c, req); err != nil {
		_ = shimapi.WriteLine(conn, shimapi.Response{Error: err.Error()})
		return
	}
	cl := &client{conn: conn, stdout: req.Stdout, stderr: req.Stderr, wake: make(chan struct{}, 1)}
	// Who has the answer misses nothing from then on: frames wait until it is written.
	if !c.tee.add(cl) {
		cl.send(shimapi.FrameExit, nil)
	}
	defer c.tee.remove(cl)
	if err := shimapi.WriteLine(conn, shimapi.Response{}); err != nil {
		return
	}
	_ = conn.SetDeadline(time.Time{})

	gone := make(chan struct{})
	go func() {
		defer close(gone)
		c.readClient(r, req.Stdin)
	}()
	cl.run(gone)
	_ = conn.Close() // ends readClient
	<-gone
}

func attachable(c *container, req shimapi.Request) error {
	switch {
	case c == nil:
		return fmt.Errorf("container %.128q is not here", req.Container)
	case req.Stdin && c.stdin == "":
		return errors.New("container has no stdin")
	case req.TTY != c.terminal:
		return fmt.Errorf("container with terminal %t, asked for %t", c.terminal, req.TTY)
	}
	return nil
}

// readClient carries the client's stdin until it leaves. What the container
// does not read blocks its client only.
func (c *container) readClient(r *bufio.Reader, stdin bool) {
	if stdin && c.once && !c.terminal {
		defer c.closeStdin()
	}
	var buf []byte
	for {
		kind, data, err := shimapi.ReadFrame(r, buf)
		if err != nil {
			return
		}
		if cap(data) > cap(buf) {
			buf = data
		}
		switch kind {
		case shimapi.FrameStdin:
			if !stdin || c.writeStdin(data) != nil {
				stdin = false // the container has closed its end; output goes on
			}
		case shimapi.FrameCloseStdin:
			if stdin && c.once && !c.terminal {
				c.closeStdin()
			}
			stdin = false
		}
	}
}
