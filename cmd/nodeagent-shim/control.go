//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sys/unix"

	"nodeagent/internal/shimapi"
)

const (
	connectionsMax = 64
	requestTime    = 10 * time.Second
)

// serveControl answers until the listener is closed.
func (s *service) serveControl(l *net.UnixListener) {
	slots := make(chan struct{}, connectionsMax)
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // out of descriptors or a client that left: the listener lives
		}
		select {
		case slots <- struct{}{}:
			go s.answer(conn, sync.OnceFunc(func() { <-slots }))
		default:
			_ = conn.Close()
		}
	}
}

// answer serves one request. An attached client gives its place back: it may
// stay for days and is counted by its container.
func (s *service) answer(conn *net.UnixConn, release func()) {
	defer release()
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(requestTime))
	if !sameUser(conn) {
		return
	}
	r := bufio.NewReaderSize(conn, 4096)
	var req shimapi.Request
	if err := shimapi.ReadLine(r, &req); err != nil {
		return
	}
	if req.Verb == shimapi.VerbAttach {
		release()
		s.attach(conn, r, req)
		return
	}
	resp, err := s.handle(req)
	if err != nil {
		resp.Error = err.Error()
	}
	err = shimapi.WriteLine(conn, resp)
	if req.Verb == shimapi.VerbExit && resp.Error == "" {
		s.cfg.shutdown.Shutdown()
	}
	_ = err // the client has left; there is nobody to tell
}

func (s *service) handle(req shimapi.Request) (shimapi.Response, error) {
	switch req.Verb {
	case shimapi.VerbExit:
		return shimapi.Response{}, s.exit(req.Force)
	case shimapi.VerbStats:
		return shimapi.Response{Stats: s.stats()}, nil
	case shimapi.VerbResize:
		ctx, cancel := context.WithTimeout(namespaces.WithNamespace(context.Background(), s.cfg.namespace), requestTime)
		defer cancel()
		_, err := s.ResizePty(ctx, &taskAPI.ResizePtyRequest{
			ID: req.Container, Width: uint32(req.Width), Height: uint32(req.Height),
		})
		return shimapi.Response{}, err
	}
	return shimapi.Response{}, fmt.Errorf("unknown verb %q", req.Verb)
}

func (s *service) stats() *shimapi.Stats {
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.containers))
	s.mu.Unlock()
	st := &shimapi.Stats{Pid: os.Getpid(), Goroutines: runtime.NumGoroutine(), Containers: []shimapi.ContainerStats{}}
	for _, c := range all { // without the lock: a hung disk holds a log's counters
		st.Containers = append(st.Containers, c.stats())
	}
	return st
}

// sameUser lets in the user that the shim runs as. The socket's mode does so
// as well; this holds where somebody changed that.
func sameUser(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return err == nil && credErr == nil && int(cred.Uid) == os.Geteuid()
}
