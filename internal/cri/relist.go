package cri

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
	"nodeagent/internal/shimapi"
)

// relist compares the picture with containerd's records and tasks, two calls in
// all, and with what lies in the run directory. The first one is the adoption.
func (n *Native) relist(ctx context.Context) error {
	var began uint64
	n.state.edit(func() { began = n.state.seq })
	records, processes, err := n.list(ctx)
	if err != nil {
		return err
	}
	woken := map[types.UID]bool{}
	known := make(map[string]bool, len(records))
	for _, r := range records {
		known[r.ID] = true
		n.adopt(r, processes[r.ID], woken)
	}
	n.settleListed(ctx, processes)
	n.dropLost(ctx, known, began, woken)
	n.checkPins()
	n.sweep(ctx, known)
	n.state.edit(func() {
		for id, seq := range n.state.gone {
			if seq <= began { // this list began after the removal
				delete(n.state.gone, id)
			}
		}
	})
	n.openSynced()
	for uid := range woken {
		n.cfg.Wake(uid)
	}
	return nil
}

func (n *Native) openSynced() {
	select {
	case <-n.synced:
	default:
		close(n.synced)
	}
}

func (n *Native) list(ctx context.Context) ([]containers.Container, map[string]*task.Process, error) {
	var records []containers.Container
	processes := map[string]*task.Process{}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		cctx, cancel := n.call(gctx)
		defer cancel()
		if records, err = n.client.ContainerService().List(cctx, ourRecords); err != nil {
			return fmt.Errorf("list records: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		// containerd asks one shim after another, 2 s for one that is stuck, and
		// leaves that out: so one that is missing here is asked for by itself.
		cctx, cancel := context.WithTimeout(gctx, n.cfg.CreateTimeout)
		defer cancel()
		resp, err := n.client.TaskService().List(cctx, &tasks.ListTasksRequest{})
		if err != nil {
			return fmt.Errorf("list tasks: %w", native(err))
		}
		for _, p := range resp.GetTasks() {
			processes[p.GetID()] = p
		}
		return nil
	})
	err := g.Wait()
	return records, processes, err
}

// adopt puts what a record says into the picture, unless it is there.
func (n *Native) adopt(r containers.Container, p *task.Process, woken map[types.UID]bool) {
	var known, gone bool
	n.state.edit(func() {
		_, isSandbox := n.state.sandboxes[r.ID]
		_, isContainer := n.state.containers[r.ID]
		_, gone = n.state.gone[r.ID]
		known = isSandbox || isContainer
	})
	if known || gone {
		return
	}
	if r.Labels[labelKind] == kindSandbox {
		n.adoptSandbox(r, woken)
		return
	}
	c := containerOf(r)
	n.adoptTask(c, p)
	n.state.addContainer(c)
	woken[c.uid] = true
}

func (n *Native) adoptSandbox(r containers.Container, woken map[types.UID]bool) {
	s, err := sandboxOf(r)
	if err != nil {
		n.log.Error("cannot adopt a sandbox", "sandbox", r.ID, "err", err)
		return
	}
	// Whether its shim is up shows at the next start; it costs one lock.
	s.visible = true
	switch {
	case s.boot != n.boot:
		s.reason = reasonRebooted
	case s.netns != "" && len(s.addrs) == 0:
		s.reason = reasonIncomplete
	case !n.pinsOf(s).intact():
		s.reason = reasonNetworkLost
	}
	n.state.addSandbox(s)
	woken[s.uid] = true
}

// adoptTask says how far a container is, from what is there at once. Its end
// is found by settle.
func (n *Native) adoptTask(c *container, p *task.Process) {
	mark, wasStarted := n.readStarted(c.id)
	if c.info.State == pod.ContainerExited {
		c.tasked = p != nil
		return
	}
	if p != nil || wasStarted {
		c.tasked = true
	}
	switch {
	case c.boot != n.boot:
		// Whether it ever started is lost with the run directory. To say that it
		// did is the safe side: a pod that must not run twice does not.
		c.tasked = true
		c.info.State = pod.ContainerRunning
	case p.GetStatus() == task.Status_RUNNING, p.GetStatus() == task.Status_PAUSED, p.GetStatus() == task.Status_PAUSING:
		c.info.State, c.info.Pid, c.info.Started = pod.ContainerRunning, p.GetPid(), mark.At
	case p.GetStatus() == task.Status_CREATED:
		// The daemon died between the task and its start; it is removed.
	case wasStarted:
		// Ended, or its shim does not answer.
		c.info.State, c.info.Pid, c.info.Started = pod.ContainerRunning, mark.Pid, mark.At
	}
	if c.info.State == pod.ContainerRunning && c.info.Started.IsZero() {
		c.info.Started = c.info.Created
	}
}

// settleListed looks into every container that should have a running task and
// is not listed with one, and into those with an end that is not durable. At
// adoption the exits are waited for, so that nobody acts on a picture that
// shows ended containers as running.
func (n *Native) settleListed(ctx context.Context, processes map[string]*task.Process) {
	var suspects []*container
	n.state.edit(func() {
		for _, c := range n.state.containers {
			p := processes[c.id]
			switch {
			case c.starting || c.removing:
			case c.info.State == pod.ContainerExited && c.durable && !c.tasked:
			case c.info.State == pod.ContainerCreated && !c.tasked:
			case c.info.State == pod.ContainerRunning && c.boot == n.boot && p.GetStatus() == task.Status_RUNNING:
			default:
				suspects = append(suspects, c)
			}
		}
	})
	g := errgroup.Group{}
	g.SetLimit(8)
	for _, c := range suspects {
		g.Go(func() error {
			rctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			if err := c.lock.acquire(rctx); err != nil {
				return nil // an operation is at work on it and will see
			}
			_, err := n.resolveExit(rctx, c)
			c.lock.release()
			if err != nil {
				n.log.Warn("cannot look at a container", "container", c.id, "podUID", c.uid, "err", err)
			}
			n.noticeExit(ctx, c.id)
			return nil
		})
	}
	_ = g.Wait()
	n.scanExits(ctx)
}

// dropLost forgets what is in the picture and in no record: containerd has lost
// it. Whatever still runs of it is ended first.
func (n *Native) dropLost(ctx context.Context, known map[string]bool, began uint64, woken map[types.UID]bool) {
	var lostC []*container
	var lostS []*sandbox
	n.state.edit(func() {
		for id, c := range n.state.containers {
			if !known[id] && c.seq <= began && !c.starting && !c.removing {
				lostC = append(lostC, c)
			}
		}
		for id, s := range n.state.sandboxes {
			if !known[id] && s.seq <= began && s.isCommitted() && !s.stopping {
				lostS = append(lostS, s)
			}
		}
	})
	for _, c := range lostC {
		n.log.Error("containerd has lost a container", "container", c.id, "podUID", c.uid)
		if err := n.endLost(ctx, c); err != nil {
			n.log.Warn("cannot end a lost container yet", "container", c.id, "podUID", c.uid, "err", err)
			continue
		}
		woken[c.uid] = true
	}
	for _, s := range lostS {
		n.log.Error("containerd has lost a sandbox", "sandbox", s.id, "podUID", s.uid)
		n.state.edit(func() { s.reason = reasonIncomplete })
		woken[s.uid] = true
	}
}

func (n *Native) endLost(ctx context.Context, c *container) error {
	ctx, cancel := n.call(ctx)
	defer cancel()
	if err := c.lock.acquire(ctx); err != nil {
		return err
	}
	defer c.lock.release()
	if err := n.killCgroup(ctx, c.cgroup); err != nil {
		return err
	}
	if err := n.deleteContainer(ctx, c); err != nil {
		return err
	}
	n.state.edit(func() { c.setExit(exitLabel{Code: killedCode, Finished: time.Now(), Reason: "ContainerStatusUnknown"}) })
	n.state.removeContainer(c)
	return nil
}

func (s *sandbox) isCommitted() bool {
	select {
	case <-s.committed:
		return s.commitErr == nil
	default:
		return false
	}
}

// sweep removes what lies in the run directory and belongs to nothing that is
// known: exit records, marks, half made sandboxes, shims.
func (n *Native) sweep(ctx context.Context, known map[string]bool) {
	n.sweepSandboxes(ctx, known)
	ids, err := shimapi.ListExits(n.cfg.RunDir)
	if err != nil {
		n.log.Warn("cannot list exit records", "err", err)
	}
	for _, id := range ids {
		if known[id] {
			continue
		}
		if _, err := n.state.container(id); err == nil {
			continue
		}
		if err := shimapi.RemoveExit(n.cfg.RunDir, id); err != nil {
			n.log.Warn("cannot remove an old exit record", "err", err)
		}
	}
}
