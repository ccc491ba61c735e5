//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	eventstypes "github.com/containerd/containerd/api/events"
	taskAPI "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"

	"nodeagent/internal/shimapi"
)

// unusedTime is how long a shim waits for its first container: longer than any
// honest start, and an end for one whose containerd died in between.
const unusedTime = 2 * time.Minute

// calmTime after the last container came or went, the shim gives back the
// memory that this took. containerd's own shim does so every 30 s for ever,
// which a node with many pods feels.
const calmTime = 5 * time.Second

// The collector's percentages (GOGC). As containerd's shim: small rather than
// quick. While a container is created and started, and until memory is returned, the
// collector need not run at all: what that allocates is less than the 16 MB at which
// it then would. Some collections in between were a tenth of what a pod's shim costs,
// and one right after the start a seventh, at a time when other pods wait for a core.
const (
	calmGC = 40
	busyGC = 400
)

type serviceConfig struct {
	namespace  string
	bundle     string
	taskSocket string
	shutdown   shutdown.Service
}

// service is containerd's task service with exits recorded, logs written, and
// a life of its own: it ends when the control socket says so.
type service struct {
	taskAPI.TTRPCTaskService
	cfg     serviceConfig
	monitor *stdioMonitor

	mu         sync.Mutex
	containers map[string]*container
	plain      map[string]struct{} // containers without a log of ours
	sandbox    string              // with runDir: known from the first container on
	runDir     string
	control    *net.UnixListener
	exiting    bool
	leaveBy    time.Time   // until then a signal has asked for the end
	calm       *time.Timer // returns memory after the last change
}

func newService(ctx context.Context, cfg serviceConfig) (*service, error) {
	publisher, err := newPublisher()
	if err != nil {
		return nil, err
	}
	s := &service{cfg: cfg, containers: map[string]*container{}, plain: map[string]struct{}{}}
	queue := newEventQueue(publisher)
	queue.onExit = s.exited
	if s.TTRPCTaskService, s.monitor, err = newTasks(ctx, cfg.shutdown, queue); err != nil {
		return nil, err
	}
	go queue.run()
	s.calm = time.AfterFunc(calmTime, func() {
		debug.SetGCPercent(calmGC)
		debug.FreeOSMemory()
	})
	time.AfterFunc(unusedTime, func() {
		if !s.bound() {
			s.leave()
		}
	})
	return s, nil
}

// Create makes a container with our stdio, log and exit record if its stdout
// is a log URI, and as containerd's shim would if it is not.
func (s *service) Create(ctx context.Context, r *taskAPI.CreateTaskRequest) (*taskAPI.CreateTaskResponse, error) {
	if !shimapi.IsLogURI(r.Stdout) {
		return s.createPlain(ctx, r)
	}
	debug.SetGCPercent(busyGC)
	s.calm.Reset(calmTime)
	c, err := s.admit(r)
	if err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	resp, err := s.create(ctx, c, r)
	if err != nil {
		c.abandon()
		s.forget(c)
		return nil, err
	}
	c.begin(int(resp.Pid))
	s.calm.Reset(calmTime)
	return resp, nil
}

// admit checks the request and enters the container.
func (s *service) admit(r *taskAPI.CreateTaskRequest) (*container, error) {
	uri, err := shimapi.ParseLogURI(r.Stdout)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err := shimapi.CheckID(r.ID); err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if r.Checkpoint != "" {
		return nil, fmt.Errorf("restore from a checkpoint: %w", errdefs.ErrNotImplemented)
	}
	if r.Stdin != "" && r.Stdin != shimapi.StdinURI && r.Stdin != shimapi.StdinOnceURI {
		return nil, fmt.Errorf("stdin %q with a log uri: %w", r.Stdin, errdefs.ErrInvalidArgument)
	}
	c, err := newContainer(r, uri)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err := writeNote(r.Bundle, r.Stdout); err != nil {
		return nil, fmt.Errorf("note log uri in bundle: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exiting {
		return nil, fmt.Errorf("shim is ending: %w", errdefs.ErrUnavailable)
	}
	if s.containers[r.ID] != nil {
		return nil, fmt.Errorf("container %s: %w", r.ID, errdefs.ErrAlreadyExists)
	}
	if err := s.bind(uri); err != nil {
		return nil, err
	}
	s.containers[r.ID] = c
	return c, nil
}

// create hands the request on with stdio of ours.
func (s *service) create(ctx context.Context, c *container, r *taskAPI.CreateTaskRequest) (*taskAPI.CreateTaskResponse, error) {
	defer c.releaseTheirs()
	r.Stdin, r.Stdout, r.Stderr = "", "", "" // the request is this call's own
	if c.terminal {
		in, out, err := c.fifos(r.Bundle)
		if err != nil {
			return nil, errgrpc.ToGRPC(fmt.Errorf("make terminal fifos: %w", err))
		}
		defer func() { _, _ = os.Remove(in), os.Remove(out) }()
		r.Stdin, r.Stdout = in, out
		return s.TTRPCTaskService.Create(ctx, r)
	}
	files, err := c.pipes()
	if err != nil {
		return nil, errgrpc.ToGRPC(fmt.Errorf("make container pipes: %w", err))
	}
	s.monitor.expect(r.ID, files)
	defer s.monitor.forget(r.ID)
	return s.TTRPCTaskService.Create(ctx, r)
}

func (s *service) createPlain(ctx context.Context, r *taskAPI.CreateTaskRequest) (*taskAPI.CreateTaskResponse, error) {
	s.mu.Lock()
	if s.exiting {
		s.mu.Unlock()
		return nil, errgrpc.ToGRPC(fmt.Errorf("shim is ending: %w", errdefs.ErrUnavailable))
	}
	s.plain[r.ID] = struct{}{}
	s.mu.Unlock()
	resp, err := s.TTRPCTaskService.Create(ctx, r)
	if err != nil {
		s.mu.Lock()
		delete(s.plain, r.ID)
		s.mu.Unlock()
	}
	return resp, err
}

// bind ties the shim to the sandbox of its first container and opens the
// control socket, again where somebody has removed it. s.mu is held.
func (s *service) bind(uri shimapi.LogURI) error {
	if s.sandbox != "" && (s.sandbox != uri.Sandbox || s.runDir != uri.RunDir) {
		return fmt.Errorf("shim serves sandbox %s in %s: %w", s.sandbox, s.runDir, errdefs.ErrInvalidArgument)
	}
	if s.control != nil {
		if _, err := shimapi.ReadShim(s.runDir, s.sandbox); err == nil {
			return nil
		}
		_ = s.control.Close()
	}
	start, err := shimapi.ProcessStartTime(os.Getpid())
	if err != nil {
		return err
	}
	l, err := shimapi.Listen(uri.RunDir, uri.Sandbox)
	if err != nil {
		return err
	}
	err = shimapi.WriteShim(uri.RunDir, shimapi.ShimRecord{
		SandboxID: uri.Sandbox, Namespace: s.cfg.namespace, Pid: os.Getpid(), StartTime: start,
		Bundle: s.cfg.bundle, Socket: s.cfg.taskSocket,
	})
	if err != nil {
		return errors.Join(err, l.Close(), shimapi.RemoveShim(uri.RunDir, uri.Sandbox))
	}
	s.sandbox, s.runDir, s.control = uri.Sandbox, uri.RunDir, l
	go s.serveControl(l)
	return nil
}

// rebind brings record and control socket back where somebody has removed them:
// after the last container nobody would find this shim to end it.
func (s *service) rebind(uri shimapi.LogURI) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.exiting {
		_ = s.bind(uri) // the run directory is gone: so is who would ask
	}
}

func (s *service) bound() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sandbox != "" || len(s.plain) > 0
}

func (s *service) find(id string) *container {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.containers[id]
}

func (s *service) forget(c *container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.containers[c.id] == c {
		delete(s.containers, c.id)
	}
}

// exited takes over the exit of a container's init from the event stream: the
// record first, the event after it.
func (s *service) exited(ev *eventstypes.TaskExit, publish func()) bool {
	c := s.find(ev.ContainerID)
	if c == nil {
		return false
	}
	c.exitOnce.Do(func() {
		close(c.exited)
		go func() {
			c.finish(ev, publish)
			s.leaveIfAsked()
		}()
	})
	return true
}

// leave ends the process if no container is left.
func (s *service) leave() bool {
	if s.exit(false) != nil {
		return false
	}
	s.cfg.shutdown.Shutdown()
	return true
}

// exit readies the shim for its end: its names go first, so that nobody finds a shim that is
// about to end. Without force it refuses while a container is left.
func (s *service) exit(force bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exiting {
		return nil
	}
	if n := len(s.containers) + len(s.plain); n > 0 && !force {
		return shimapi.ErrBusy
	}
	s.hide()
	return nil
}

// hide takes the shim's names away, so that nobody finds it any more, and lets no
// container begin. The caller holds the lock.
func (s *service) hide() {
	s.exiting = true
	var errs []error
	if s.control != nil {
		errs = append(errs, s.control.Close(), shimapi.RemoveShim(s.runDir, s.sandbox))
	}
	if err := os.Remove(s.cfg.taskSocket); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		log.L.WithError(err).Warn("remove sockets")
	}
}
