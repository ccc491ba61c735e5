package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"

	"nodeagent/internal/failpoint"
	"nodeagent/internal/pod"
	"nodeagent/internal/shimapi"
)

const killedCode = 137 // 128 + SIGKILL

// stoppedSettle is how long the durable move of an exit waits when the
// container was told to stop: its removal is likely to come first, and makes it
// needless. The exit record holds the truth meanwhile.
const stoppedSettle = 500 * time.Millisecond

// settler runs the work after exits: one goroutine a container at most, and a
// bound on those that talk to containerd. Run owns them.
type settler struct {
	mu      sync.Mutex
	busy    map[string]bool // id: somebody asked again meanwhile
	closed  bool
	running sync.WaitGroup
	slots   chan struct{}
}

func newSettler(slots int) *settler {
	return &settler{busy: map[string]bool{}, slots: make(chan struct{}, slots)}
}

// start runs f for id unless it runs already; then it will run once more.
func (s *settler) start(id string, f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if _, ok := s.busy[id]; ok {
		s.busy[id] = true
		return
	}
	s.busy[id] = false
	s.running.Go(func() {
		for again := true; again; {
			f()
			s.mu.Lock()
			if again = s.busy[id]; again {
				s.busy[id] = false
			} else {
				delete(s.busy, id)
			}
			s.mu.Unlock()
		}
	})
}

// run runs f in a goroutine that wait waits for, or here when it is too late.
func (s *settler) run(f func()) {
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.running.Go(f)
	}
	s.mu.Unlock()
	if closed {
		f()
	}
}

func (s *settler) wait() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.running.Wait()
}

// noticeExit is called for everything that hints at the end of a container: a
// new exit record, an event, a relist. The hint is never the truth.
func (n *Native) noticeExit(ctx context.Context, id string) {
	c, err := n.state.container(id)
	if err != nil {
		return
	}
	n.settles.start(id, func() {
		if err := n.settle(ctx, c); err != nil && ctx.Err() == nil {
			n.log.Warn("cannot settle the end of a container yet", "container", id, "podUID", c.uid, "err", err)
		}
	})
}

// settle finds out whether and how c ended, and moves that into its record;
// only then is the task deleted.
func (n *Native) settle(ctx context.Context, c *container) error {
	if err := c.lock.acquire(ctx); err != nil {
		return err
	}
	ended, err := n.resolveExit(ctx, c)
	c.lock.release()
	if err != nil || !ended {
		return err
	}
	var held bool
	n.state.edit(func() { held = c.held && !c.stopping })
	if held {
		if err := n.note(ctx, c); err != nil && ctx.Err() == nil {
			n.log.Warn("show the end of a container that is not on record yet", "container", c.id, "podUID", c.uid, "err", err)
		}
	}
	if c.isStopping(n.state) && !sleep(ctx, stoppedSettle) {
		return nil
	}
	select {
	case n.settles.slots <- struct{}{}:
		defer func() { <-n.settles.slots }()
	case <-ctx.Done():
		return nil
	}
	if err := n.finish(ctx, c); err != nil {
		return err
	}
	if s, err := n.state.sandbox(c.sandbox); err == nil && s.isStopped(n.state) && s.lock.acquire(ctx) == nil {
		defer s.lock.release()
		n.endIdleShim(ctx, s)
	}
	return nil
}

// finish moves the end of c to its record, and only then deletes its task.
func (n *Native) finish(ctx context.Context, c *container) error {
	if err := c.lock.acquire(ctx); err != nil {
		return err
	}
	defer c.lock.release()
	if err := n.makeDurable(ctx, c); err != nil {
		return err
	}
	return n.deleteTask(ctx, c)
}

func (s *sandbox) isStopped(st *state) (stopped bool) {
	st.edit(func() { stopped = s.stopped })
	return stopped
}

func (c *container) isStopping(st *state) (stopping bool) {
	st.edit(func() { stopping = c.stopping })
	return stopping
}

// sleep returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// resolveExit marks c as ended if it has: by the exit record, else by what the
// task says, else, with neither, as unknown. The caller holds c's lock.
func (n *Native) resolveExit(ctx context.Context, c *container) (ended bool, err error) {
	var info pod.Container
	var tasked, removing bool
	n.state.edit(func() { info, tasked, removing = c.info, c.tasked, c.removing })
	if removing {
		return false, nil
	}
	if info.State == pod.ContainerExited {
		return true, nil
	}
	r, err := shimapi.ReadExit(n.cfg.RunDir, c.id)
	if err == nil {
		n.setExit(c, fromRecord(r))
		return true, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		n.log.Error("exit record is damaged", "container", c.id, "err", err)
	}
	if info.State == pod.ContainerCreated && !tasked {
		return false, nil // it never started
	}
	return n.exitFromTask(ctx, c, info)
}

func (n *Native) exitFromTask(ctx context.Context, c *container, info pod.Container) (bool, error) {
	ctx, cancel := n.call(ctx)
	defer cancel()
	resp, err := n.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: c.id})
	if err := native(err); err != nil && !errdefs.IsNotFound(err) {
		return false, fmt.Errorf("look at task: %w", err)
	}
	p := resp.GetProcess()
	switch p.GetStatus() {
	case task.Status_RUNNING, task.Status_PAUSED, task.Status_PAUSING:
		n.adoptRunning(c, p.GetPid())
		return false, nil
	case task.Status_STOPPED:
		code := int32(p.GetExitStatus())
		n.setExit(c, exitLabel{Code: code, Finished: p.GetExitedAt().AsTime(), Reason: reasonOf(code, false)})
		return true, nil
	case task.Status_CREATED:
		// A daemon died between the task and its start; it is to be removed.
		n.state.edit(func() {
			if c.info.State == pod.ContainerRunning {
				c.info.State, c.info.Pid = pod.ContainerCreated, 0
			}
		})
		return false, nil
	}
	// No task. The exit record is written before a task goes: look once more.
	if r, err := shimapi.ReadExit(n.cfg.RunDir, c.id); err == nil {
		n.setExit(c, fromRecord(r))
		return true, nil
	}
	n.state.edit(func() { c.tasked = false })
	if info.State == pod.ContainerCreated {
		return false, nil
	}
	return n.exitUnknown(ctx, c)
}

// adoptRunning takes over a container that runs and whose mark is gone.
func (n *Native) adoptRunning(c *container, pid uint32) {
	var changed bool
	n.state.edit(func() {
		if c.info.State == pod.ContainerExited {
			return
		}
		changed = c.info.State != pod.ContainerRunning
		c.info.State, c.info.Pid = pod.ContainerRunning, pid
		if c.info.Started.IsZero() {
			c.info.Started = c.info.Created
		}
	})
	if changed && c.kind == kindContainer {
		n.cfg.Wake(c.uid)
	}
}

// exitUnknown ends a container of which nothing is left to ask: whatever still
// runs of it is killed first, so that it never runs twice.
func (n *Native) exitUnknown(ctx context.Context, c *container) (bool, error) {
	if err := n.killCgroup(ctx, c.cgroup); err != nil {
		return false, err
	}
	n.setExit(c, exitLabel{
		Code: killedCode, Finished: time.Now(), Reason: "ContainerStatusUnknown",
		Message: "The container could not be located when it ended: neither its task nor its exit record is left",
	})
	return true, nil
}

func fromRecord(r shimapi.ExitRecord) exitLabel {
	code := int32(r.ExitCode)
	// An OOM kill of a child is not the container's end.
	oom := r.OOMKills > 0 && code == killedCode
	e := exitLabel{Code: code, Started: r.StartedAt, Finished: r.ExitedAt, OOM: oom, Reason: reasonOf(code, oom)}
	if r.ShimLost {
		e.Message = "The shim of the pod was lost, and what it ran was killed"
	}
	return e
}

func reasonOf(code int32, oom bool) string {
	switch {
	case oom:
		return "OOMKilled"
	case code == 0:
		return "Completed"
	default:
		return "Error"
	}
}

// setExit marks c as ended in memory and wakes the pod, unless the end is to be
// shown only when it is on the record.
func (n *Native) setExit(c *container, e exitLabel) {
	var first, held bool
	may := c.kind == kindContainer && n.holds()
	n.state.edit(func() {
		first = c.setExit(e)
		held = first && may && !c.stopping
		c.held = c.held || held
	})
	switch {
	case !first:
	case c.kind == kindInit:
		n.initEnded(c)
	case !held:
		n.cfg.Wake(c.uid)
	}
}

// makeDurable writes c's end on its record. The caller holds c's lock.
func (n *Native) makeDurable(ctx context.Context, c *container) error {
	var info pod.Container
	var skip bool
	n.state.edit(func() {
		info = c.info
		skip = c.durable || c.removing || info.State != pod.ContainerExited
	})
	if skip {
		return nil
	}
	if err := failpoint.At(failpoint.CRIExitLabelBefore); err != nil {
		return err
	}
	e := exitLabel{
		Code: info.ExitCode, Started: info.Started, Finished: info.Finished,
		OOM: info.OOMKilled, Reason: info.Reason, Message: info.Message,
	}
	ctx, cancel := n.call(ctx)
	defer cancel()
	_, err := n.client.ContainerService().Update(ctx, containers.Container{
		ID: c.id, Labels: map[string]string{labelExit: e.encode()},
	}, "labels."+labelExit)
	if err != nil {
		return fmt.Errorf("write end of container: %w", err)
	}
	n.state.edit(func() { c.durable = true })
	return failpoint.At(failpoint.CRIExitLabelAfter)
}

// deleteTask deletes the stopped task of c, if there is one.
func (n *Native) deleteTask(ctx context.Context, c *container) error {
	var tasked bool
	n.state.edit(func() { tasked = c.tasked })
	if !tasked {
		return nil
	}
	if err := failpoint.At(failpoint.CRITaskDeleteBefore); err != nil {
		return err
	}
	if err := n.deleteTaskCall(ctx, c); err != nil {
		return fmt.Errorf("delete task: %w", err)
	}
	n.state.edit(func() { c.tasked = false })
	return failpoint.At(failpoint.CRITaskDeleteAfter)
}

// deleteTaskCall deletes the task, and kills the shim if that does not answer
// and has nothing else to care for: containerd then cleans up after it.
func (n *Native) deleteTaskCall(ctx context.Context, c *container) error {
	req := &tasks.DeleteTaskRequest{ContainerID: c.id}
	cctx, cancel := n.call(ctx)
	_, err := n.client.TaskService().Delete(cctx, req)
	cancel()
	if err = ignoreNotFound(native(err)); !isDeadline(err) || ctx.Err() != nil || n.Healthy() != nil || n.running(c.sandbox) {
		return err
	}
	n.log.Warn("the shim of a sandbox does not answer and is killed", "sandbox", c.sandbox, "podUID", c.uid)
	if err := n.killShim(c.sandbox); err != nil {
		return err
	}
	cctx, cancel = n.call(ctx)
	defer cancel()
	// containerd says "closed" until it has cleaned up, and tells nobody that it
	// has who is not there to listen to events just then.
	for wait := 20 * time.Millisecond; ; wait *= 2 {
		_, err = n.client.TaskService().Delete(cctx, req)
		if err = ignoreNotFound(native(err)); err == nil || !sleep(cctx, wait) {
			return err
		}
	}
}

// running tells whether a container of the sandbox runs.
func (n *Native) running(sandbox string) (running bool) {
	n.state.edit(func() {
		for _, c := range n.state.containers {
			running = running || c.sandbox == sandbox && c.info.State == pod.ContainerRunning
		}
	})
	return running
}
