package cri

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"golang.org/x/sys/unix"

	"nodeagent/internal/failpoint"
	"nodeagent/internal/pod"
)

// killWait bounds the wait for a container's end after everything in its
// cgroup got SIGKILL.
const killWait = 5 * time.Second

// stopRecord keeps the deadline of a stop over a restart of the daemon. Its
// clock is CLOCK_BOOTTIME: it ends with the boot as the container does, and
// nobody can set it.
type stopRecord struct {
	Deadline int64 `json:"deadline"`         // nanoseconds since boot
	Sent     bool  `json:"sent"`             // the polite signal was sent
	Hooked   bool  `json:"hooked,omitempty"` // there is no preStop hook to run any more
	Again    bool  `json:"again,omitempty"`  // the container is to be started again
}

// StopContainer ends a running container: the stop signal, then after grace
// SIGKILL for everything in its cgroup. Once the signal was sent, a second stop
// may only shorten the grace, and so does one after a restart. It returns when the
// container has ended. Idempotent.
func (n *Native) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	c, err := n.state.container(id)
	if err != nil {
		return ignoreNotFound(err)
	}
	running, err := n.markStopping(ctx, c)
	if err != nil || !running {
		return err
	}
	r, err := n.noteStop(c, func(r *stopRecord) {
		deadline := bootTime() + int64(grace)
		if r.Sent {
			deadline = min(deadline, r.Deadline)
		}
		r.Deadline, r.Hooked = deadline, true
	})
	if err != nil {
		return fmt.Errorf("stop container: %w", err)
	}
	if left := r.left(); left > 0 {
		if err := n.askToStop(ctx, c, r); err != nil {
			n.log.Warn("cannot signal a container", "container", c.id, "podUID", c.uid, "err", err)
		}
		if ended, err := n.waitExit(ctx, c, left); ended || err != nil {
			return err
		}
	}
	return n.kill(ctx, c)
}

// markStopping waits for a start at work, and tells whether c is running.
func (n *Native) markStopping(ctx context.Context, c *container) (running bool, err error) {
	if err := c.lock.acquire(ctx); err != nil {
		return false, err
	}
	defer c.lock.release()
	n.state.edit(func() {
		c.stopping = true
		running = c.info.State == pod.ContainerRunning || c.info.State == pod.ContainerCreated && c.tasked
	})
	return running, nil
}

// NoteStop notes that the container is to have ended after grace at the latest, before
// anything is done to it; hooked, that its preStop hook needs no running any more;
// again, that it is to be started afterwards. All of it outlives the daemon, and nothing
// of it is taken back: a later note may only shorten the time.
func (n *Native) NoteStop(_ context.Context, id string, grace time.Duration, hooked, again bool) error {
	c, err := n.state.container(id)
	if err != nil {
		return ignoreNotFound(err)
	}
	_, err = n.noteStop(c, func(r *stopRecord) {
		deadline := bootTime() + int64(grace)
		if r.Deadline == 0 || deadline < r.Deadline {
			r.Deadline = deadline
		}
		r.Hooked, r.Again = r.Hooked || hooked, r.Again || again
	})
	if err != nil {
		return fmt.Errorf("note a stop: %w", err)
	}
	return nil
}

// NotePostStart notes that the postStart hook of the container has ended well.
func (n *Native) NotePostStart(_ context.Context, id string) error {
	c, err := n.state.container(id)
	if err != nil {
		return ignoreNotFound(err)
	}
	var mark started
	n.state.edit(func() {
		c.info.PostStart = false
		mark = started{At: c.info.Started, Pid: c.info.Pid}
	})
	if mark.Pid == 0 {
		return nil // it has ended
	}
	if err := failpoint.At(failpoint.CRINotePostStartBefore); err != nil {
		return err
	}
	if err := n.writeStarted(c, mark); err != nil {
		// The next daemon runs the hook again, which a hook has to bear.
		n.log.Warn("cannot note the end of a hook", "container", c.id, "err", err)
	}
	return failpoint.At(failpoint.CRINotePostStartAfter)
}

// noteStop changes the record of c's stop, in memory and on disk, one change after the
// other: a stop that shortens the time may come while another one is at work.
func (n *Native) noteStop(c *container, change func(*stopRecord)) (stopRecord, error) {
	c.noting.Lock()
	defer c.noting.Unlock()
	var was, is stopRecord
	n.state.edit(func() {
		if c.stop != nil {
			was = *c.stop
		}
		is = was
		change(&is)
		c.stop = &is
	})
	if is == was {
		return is, nil
	}
	return is, n.writeStop(c.id, is)
}

func (r stopRecord) left() time.Duration { return time.Duration(r.Deadline - bootTime()) }

func bootTime() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // cannot fail for this clock
	return ts.Nano()
}

func (n *Native) readStop(id string) (r stopRecord, ok bool) {
	data, err := os.ReadFile(n.stopPath(id))
	return r, err == nil && json.Unmarshal(data, &r) == nil
}

func (n *Native) writeStop(id string, r stopRecord) error {
	if err := failpoint.At(failpoint.CRIStopRecordBefore); err != nil {
		return err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode stop record: %w", err)
	}
	if err := replaceFile(n.stopPath(id), data); err != nil {
		// A full disk keeps nobody from being stopped: a daemon that is
		// restarted meanwhile begins the grace period again, that is all.
		n.log.Warn("cannot keep the deadline of a stop", "container", id, "err", err)
	}
	return failpoint.At(failpoint.CRIStopRecordAfter)
}

// askToStop sends the polite signal, once over all stops of this container.
func (n *Native) askToStop(ctx context.Context, c *container, r stopRecord) error {
	if r.Sent {
		return nil
	}
	if err := failpoint.At(failpoint.CRIStopSignalBefore); err != nil {
		return err
	}
	if err := n.signal(ctx, c, c.stopSignal()); err != nil {
		return err
	}
	if _, err := n.noteStop(c, func(r *stopRecord) { r.Sent = true }); err != nil {
		return err
	}
	return failpoint.At(failpoint.CRIStopSignalAfter)
}

// signal sends sig to the init process. It does so itself where it can prove
// whose process that is, so that a stop needs neither containerd nor a runc;
// else through the task.
func (n *Native) signal(ctx context.Context, c *container, sig unix.Signal) error {
	var pid uint32
	n.state.edit(func() { pid = c.info.Pid })
	if signalMember(int(pid), c.id, sig) {
		return nil
	}
	ctx, cancel := n.call(ctx)
	defer cancel()
	_, err := n.client.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: c.id, Signal: uint32(sig)})
	if err := ignoreNotFound(native(err)); err != nil {
		return fmt.Errorf("signal task: %w", err)
	}
	return nil
}

// waitExit waits until c has ended.
func (n *Native) waitExit(ctx context.Context, c *container, d time.Duration) (bool, error) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c.exited:
		return true, nil
	case <-t.C:
		return false, nil
	case <-ctx.Done():
		return false, fmt.Errorf("stop container: %w", context.Cause(ctx))
	}
}

// kill ends everything in the container's cgroup and waits for its end.
func (n *Native) kill(ctx context.Context, c *container) error {
	if err := failpoint.At(failpoint.CRIStopKillBefore); err != nil {
		return err
	}
	if err := n.killCgroup(ctx, c.cgroup); err != nil {
		return fmt.Errorf("stop container: %w", err)
	}
	if err := failpoint.At(failpoint.CRIStopKillAfter); err != nil {
		return err
	}
	if ended, err := n.waitExit(ctx, c, time.Second); ended || err != nil {
		return err
	}
	// Nobody told of the end: a runtime that puts its processes elsewhere, a
	// shim that is stuck or gone.
	if err := n.signal(ctx, c, unix.SIGKILL); err != nil {
		return fmt.Errorf("stop container: %w", err)
	}
	n.noticeExit(ctx, c.id)
	ended, err := n.waitExit(ctx, c, killWait)
	if err != nil || ended {
		return err
	}
	return n.exitUnreported(ctx, c)
}

// exitUnreported ends c by the kernel's word: nothing is left in its cgroup,
// and its shim does not say so.
func (n *Native) exitUnreported(ctx context.Context, c *container) error {
	var pid uint32
	n.state.edit(func() { pid = c.info.Pid })
	if member(int(pid), c.id) || pid == 0 {
		return fmt.Errorf("stop container %s: its end was not reported within %s after SIGKILL", c.id, killWait)
	}
	if err := c.lock.acquire(ctx); err != nil {
		return err
	}
	defer c.lock.release()
	n.setExit(c, exitLabel{
		Code: killedCode, Finished: time.Now(), Reason: reasonOf(killedCode, false),
		Message: "Killed; its shim did not report the end",
	})
	return nil
}

// stopSignal is the number on the record, put there when the container was
// created.
func (c *container) stopSignal() unix.Signal {
	if v, err := strconv.Atoi(c.signal); err == nil && v > 0 && v <= maxSignal {
		return unix.Signal(v)
	}
	return unix.SIGTERM
}
