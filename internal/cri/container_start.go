package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"

	"nodeagent/internal/failpoint"
	"nodeagent/internal/mkdir"
	"nodeagent/internal/pod"
	"nodeagent/internal/shimapi"
)

var errSnapshotLost = errors.New("the root file system is gone from the snapshotter")

// startErrorCode is what kubelet reports for a container that could not start.
const startErrorCode = 128

// StartContainer starts a created container. When the runtime refuses to, the
// container has ended with reason StartError; when containerd cannot be
// reached, it stays created and may be removed.
func (n *Native) StartContainer(ctx context.Context, id string) error {
	c, err := n.state.container(id)
	if err != nil {
		return err
	}
	if err := c.lock.acquire(ctx); err != nil {
		return err
	}
	defer c.lock.release()
	s, err := n.state.sandbox(c.sandbox)
	if err != nil {
		return err
	}
	if err := n.startable(ctx, s, c); err != nil {
		return err
	}
	defer n.state.edit(func() { c.starting = false })
	pid, err := n.startTask(ctx, s, c)
	if err != nil {
		if err := n.startFailed(ctx, c, err); err != nil {
			return err
		}
		n.state.edit(func() { pid = c.info.Pid }) // it was started all the same
	}
	now := time.Now()
	n.state.edit(func() {
		if c.info.State == pod.ContainerCreated {
			c.info.State, c.info.Pid, c.info.Started, c.mounts = pod.ContainerRunning, pid, now, nil
		}
	})
	if err := n.writeStarted(c, started{At: now, Pid: pid, PostStart: c.hookDue(n.state)}); err != nil {
		// Only a restart without containerd would need it.
		n.log.Warn("cannot note the start of a container", "container", c.id, "err", err)
	}
	return nil
}

func (n *Native) startable(ctx context.Context, s *sandbox, c *container) error {
	if err := n.waitCommitted(ctx, s); err != nil {
		return fmt.Errorf("start container: sandbox: %w", err)
	}
	if err := n.usable(s); err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	var err error
	n.state.edit(func() {
		if c.info.State != pod.ContainerCreated || c.tasked {
			err = fmt.Errorf("start container %s: it was started before", c.id)
			return
		}
		c.starting = true
	})
	return err
}

// startTask makes the task and starts it. The first task of a sandbox returns
// before a second is made: it is the one that starts the shim.
func (n *Native) startTask(ctx context.Context, s *sandbox, c *container) (uint32, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.CreateTimeout)
	defer cancel()
	req, err := n.taskRequest(ctx, c)
	if err != nil {
		return 0, err
	}
	// The mark tells a container that never started from one whose shim and
	// task are gone. It needs to live as long as this boot only.
	if err := n.writeStarted(c, started{At: time.Now(), PostStart: c.hookDue(n.state)}); err != nil {
		return 0, err
	}
	release, err := n.firstOfGroup(ctx, s)
	if err != nil {
		return 0, err
	}
	err = n.createTask(ctx, c, req)
	release(err == nil)
	if err != nil {
		return 0, err
	}
	if err := failpoint.At(failpoint.CRITaskStartBefore); err != nil {
		return 0, err
	}
	n.state.edit(func() { c.asked = true })
	resp, err := n.client.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: c.id})
	if err != nil {
		return 0, fmt.Errorf("start task: %w", native(err))
	}
	return resp.GetPid(), failpoint.At(failpoint.CRITaskStartAfter)
}

func (n *Native) firstOfGroup(ctx context.Context, s *sandbox) (release func(up bool), err error) {
	var up bool
	n.state.edit(func() { up = s.shimUp })
	if up {
		return func(bool) {}, nil
	}
	if err := s.group.acquire(ctx); err != nil {
		return nil, err
	}
	return func(up bool) {
		n.state.edit(func() { s.shimUp = s.shimUp || up })
		s.group.release()
	}, nil
}

func (n *Native) createTask(ctx context.Context, c *container, req *tasks.CreateTaskRequest) error {
	if err := failpoint.At(failpoint.CRITaskCreateBefore); err != nil {
		return err
	}
	n.state.edit(func() { c.tasked = true })
	if _, err := n.client.TaskService().Create(ctx, req); err != nil {
		return fmt.Errorf("create task: %w", native(err))
	}
	return failpoint.At(failpoint.CRITaskCreateAfter)
}

func (n *Native) taskRequest(ctx context.Context, c *container) (*tasks.CreateTaskRequest, error) {
	req := &tasks.CreateTaskRequest{ContainerID: c.id, Terminal: c.terminal}
	n.state.edit(func() { req.Rootfs = c.mounts })
	if req.Rootfs == nil { // created by an earlier daemon
		mounts, err := n.client.SnapshotService(c.snapshotter).Mounts(ctx, c.id)
		if err != nil {
			return nil, fmt.Errorf("look up root file system: %w", err)
		}
		req.Rootfs = protoMounts(mounts)
	}
	if c.runtime != shimapi.Runtime || c.info.LogPath == "" {
		return req, nil
	}
	if err := mkdir.All(filepath.Dir(c.info.LogPath), 0o755); err != nil {
		return nil, fmt.Errorf("make log directory: %w", err)
	}
	uri := shimapi.LogURI{
		Path: c.info.LogPath, MaxSize: n.cfg.LogMaxSize, MaxFiles: n.cfg.LogMaxFiles,
		Sandbox: c.sandbox, RunDir: n.cfg.RunDir,
	}.String()
	req.Stdout = uri
	if !c.terminal {
		req.Stderr = uri
	}
	switch {
	case c.stdin && c.stdinOnce:
		req.Stdin = shimapi.StdinOnceURI
	case c.stdin:
		req.Stdin = shimapi.StdinURI
	}
	return req, nil
}

// startFailed cleans up after a start and says what became of the container; nil: it
// was started all the same.
func (n *Native) startFailed(ctx context.Context, c *container, cause error) error {
	cause = fmt.Errorf("start container: %w", cause)
	ctx, cancel := n.detached(ctx)
	defer cancel()
	if errdefs.IsUnavailable(cause) {
		// containerd is away: whether the task runs shows when it is back.
		return cause
	}
	if isDeadline(cause) && c.wasAsked(n.state) {
		// Whether it was started is not known: what is there says.
		if known, started := n.observeStart(ctx, c); !known {
			return cause
		} else if started {
			return nil
		}
	}
	if err := n.destroyTask(ctx, c); err != nil {
		n.log.Warn("cannot end a task that failed to start yet", "container", c.id, "podUID", c.uid, "err", err)
		return cause
	}
	_, err := n.client.SnapshotService(c.snapshotter).Stat(ctx, c.id)
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("%w: %w", cause, errSnapshotLost)
	}
	if IsRetryable(cause) {
		return cause
	}
	n.setExit(c, exitLabel{Code: startErrorCode, Finished: time.Now(), Reason: "StartError", Message: cause.Error()})
	if err := n.makeDurable(ctx, c); err != nil {
		n.log.Warn("cannot record a failed start yet", "container", c.id, "podUID", c.uid, "err", err)
	}
	n.show(c)
	return cause
}

// observeStart looks whether a container was started by a call whose outcome is not
// known: it runs now, or has ended. To end it and try again would run twice what may run
// once. The caller holds c's lock.
func (n *Native) observeStart(ctx context.Context, c *container) (known, started bool) {
	if _, err := n.resolveExit(ctx, c); err != nil {
		n.log.Warn("cannot see whether a container was started", "container", c.id, "podUID", c.uid, "err", err)
		return false, false
	}
	n.state.edit(func() { started = c.info.State != pod.ContainerCreated })
	return true, started
}

func (c *container) wasAsked(st *state) (asked bool) {
	st.edit(func() { asked = c.asked })
	return asked
}

func (c *container) hookDue(st *state) (due bool) {
	st.edit(func() { due = c.info.PostStart })
	return due
}

// started is the mark in the run directory that a container was started.
type started struct {
	At  time.Time `json:"at"`
	Pid uint32    `json:"pid,omitempty"`
	// PostStart: its postStart hook has not ended.
	PostStart bool `json:"postStart,omitempty"`
}

func (n *Native) writeStarted(c *container, m started) error {
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode start mark: %w", err)
	}
	return replaceFile(n.startedPath(c.id), data)
}

func (n *Native) readStarted(id string) (m started, ok bool) {
	data, err := os.ReadFile(n.startedPath(id))
	if err != nil {
		return m, false
	}
	_ = json.Unmarshal(data, &m) // that it exists is what counts
	return m, true
}

// replaceFile writes by rename. It does not sync: what is in the run directory
// ends with the boot.
func replaceFile(path string, data []byte) error {
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	err := os.WriteFile(temp, data, 0o600)
	if errors.Is(err, os.ErrNotExist) { // somebody emptied the run directory
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			err = os.WriteFile(temp, data, 0o600)
		}
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		_ = os.Remove(temp) // a full disk has it half written
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}
