package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
	"nodeagent/internal/shimapi"
)

// relist compares the picture with containerd's records, with the kernel, and
// with what lies in the run directory. The first one is the adoption.
//
// Tasks are not listed: containerd asks one shim after another for that, and
// waits for one that is stuck. That a container runs is proved by the kernel:
// its init process is in its cgroup. Only where there is no proof the task is
// asked for, many at a time.
func (n *Native) relist(ctx context.Context) error {
	start := time.Now()
	var began uint64
	n.state.edit(func() { began = n.state.seq })
	records, err := n.list(ctx)
	if err != nil {
		return err
	}
	woken := map[types.UID]bool{}
	known := make(map[string]bool, len(records))
	for _, r := range records {
		known[r.ID] = true
		n.adopt(r, woken)
	}
	n.settleSuspects(ctx)
	n.dropLost(ctx, known, began, woken)
	n.checkPins()
	n.sweep(ctx, known)
	n.sweepInits(ctx)
	n.state.edit(func() {
		for id, seq := range n.state.gone {
			if seq <= began { // this list began after the removal
				delete(n.state.gone, id)
			}
		}
	})
	n.openSynced()
	n.cfg.Relisted(start, time.Since(start))
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

func (n *Native) list(ctx context.Context) ([]containers.Container, error) {
	ctx, cancel := n.call(ctx)
	defer cancel()
	records, err := n.client.ContainerService().List(ctx, ourRecords)
	if err != nil {
		return nil, fmt.Errorf("list records: %w", err)
	}
	return records, nil
}

// adopt puts what a record says into the picture, unless it is there.
func (n *Native) adopt(r containers.Container, woken map[types.UID]bool) {
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
	n.adoptTask(c)
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

// adoptTask says how far a container is, as far as marks and kernel tell; the
// rest is found by settleSuspects.
func (n *Native) adoptTask(c *container) {
	c.tasked = true // one may be left, whatever the state
	if r, ok := n.readStop(c.id); ok && c.boot == n.boot {
		c.stop = &r
	}
	if c.info.State == pod.ContainerExited {
		return
	}
	if mark, ok := n.readStarted(c.id); ok {
		c.info.State, c.info.Pid, c.info.Started = pod.ContainerRunning, mark.Pid, mark.At
		c.info.PostStart = mark.PostStart
	}
	if c.boot != n.boot {
		// Whether it ever started is lost with the run directory. To say that it
		// did is the safe side: a pod that must not run twice does not.
		c.info.State, c.info.Pid, c.info.Started = pod.ContainerRunning, 0, c.info.Created
	}
}

// settleSuspects looks into every container that the kernel does not prove to
// run, and that is not known to be over and done with. The looks at one relist
// run side by side and are waited for, so that nobody acts at the start of the
// daemon on a picture that shows ended containers as running.
func (n *Native) settleSuspects(ctx context.Context) {
	type suspect struct {
		c    *container
		info pod.Container
	}
	var all []suspect
	n.state.edit(func() {
		for _, c := range n.state.containers {
			if !c.starting && !c.removing && c.tasked {
				all = append(all, suspect{c, c.info})
			}
		}
	})
	g := errgroup.Group{}
	g.SetLimit(16)
	for _, s := range all {
		if s.info.State == pod.ContainerRunning && member(int(s.info.Pid), s.c.id) {
			continue
		}
		g.Go(func() error {
			n.look(ctx, s.c)
			return nil
		})
	}
	_ = g.Wait()
	n.scanExits(ctx)
}

// look finds out how far one container is, and starts what follows.
func (n *Native) look(ctx context.Context, c *container) {
	lctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	if err := c.lock.acquire(lctx); err != nil {
		return // an operation is at work on it and will see
	}
	_, err := n.resolveExit(lctx, c)
	c.lock.release()
	if err != nil {
		n.log.Warn("cannot look at a container", "container", c.id, "podUID", c.uid, "err", err)
	}
	n.noticeExit(ctx, c.id)
}

// lookLimit bounds what a stuck shim may cost a relist.
const lookLimit = time.Second

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
	n.sweepMarks(known)
	ids, err := shimapi.ListExits(n.cfg.RunDir)
	if err != nil {
		n.log.Warn("cannot list exit records", "err", err)
	}
	for _, id := range ids {
		if n.knows(id, known) {
			continue
		}
		if err := shimapi.RemoveExit(n.cfg.RunDir, id); err != nil {
			n.log.Warn("cannot remove an old exit record", "err", err)
		}
	}
}

// sweepMarks removes the marks of containers that are gone: a daemon died
// between the record's deletion and theirs. One that is being written has a name
// of its own until it is whole, and is its container's as well.
func (n *Native) sweepMarks(known map[string]bool) {
	for _, name := range []string{"started", "stop"} {
		dir := filepath.Join(n.cfg.RunDir, name)
		entries, err := os.ReadDir(dir)
		if err != nil {
			n.log.Warn("cannot list marks of containers", "err", err)
		}
		for _, e := range entries {
			if n.knows(strings.TrimPrefix(strings.TrimSuffix(e.Name(), ".json"), "."), known) {
				continue
			}
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
				n.log.Warn("cannot remove the mark of a container that is gone", "err", err)
			}
		}
	}
}

// knows tells whether the list or the picture has the container.
func (n *Native) knows(id string, known map[string]bool) bool {
	if known[id] {
		return true
	}
	_, err := n.state.container(id)
	return err == nil
}
