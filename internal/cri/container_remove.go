package cri

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"nodeagent/internal/failpoint"
	"nodeagent/internal/pod"
	"nodeagent/internal/shimapi"
)

// RemoveContainer deletes a container that has ended or never started: task,
// record, snapshot, exit record, and its log files unless a newer run of the
// same container has none yet. Idempotent.
func (n *Native) RemoveContainer(ctx context.Context, id string) error {
	c, err := n.state.container(id)
	if err != nil {
		return ignoreNotFound(err)
	}
	if err := c.lock.acquire(ctx); err != nil {
		return err
	}
	defer c.lock.release()
	if ran, err := n.ranAfterAll(ctx, c); ran || err != nil {
		return err
	}
	if err := n.removable(c); err != nil {
		return err
	}
	if err := n.deleteContainer(ctx, c); err != nil {
		n.state.edit(func() { c.removing = false })
		return fmt.Errorf("remove container: %w", err)
	}
	if !n.newest(c) || c.neverRan(n.state) {
		if err := removeLogs(c.info.LogPath); err != nil {
			n.log.Warn("cannot remove logs of a container", "container", c.id, "podUID", c.uid, "err", err)
		}
	}
	n.state.removeContainer(c)
	n.dropLateExit(c.id) // one that came between the two
	return nil
}

// ranAfterAll tells whether a container that counts as never started was: its start
// failed in a way that left that open. It is shown as what it is then, and not removed
// for not having run.
func (n *Native) ranAfterAll(ctx context.Context, c *container) (bool, error) {
	var open bool
	n.state.edit(func() {
		open = c.kind == kindContainer && c.info.State == pod.ContainerCreated && c.tasked && c.asked && !c.removing
	})
	if !open {
		return false, nil
	}
	known, started := n.observeStart(ctx, c)
	if !known {
		return false, fmt.Errorf("remove container %s: it is not known whether it was started", c.id)
	}
	if started {
		n.cfg.Wake(c.uid)
	}
	return started, nil
}

// neverRan: its log is empty, and must not count as a run.
func (c *container) neverRan(st *state) (never bool) {
	st.edit(func() { never = c.info.State == pod.ContainerCreated })
	return never
}

func (n *Native) removable(c *container) (err error) {
	n.state.edit(func() {
		if c.info.State == pod.ContainerRunning {
			err = fmt.Errorf("remove container %s: it is running", c.id)
			return
		}
		c.removing = true
	})
	return err
}

// newest tells whether c is the last run of its container in its pod.
func (n *Native) newest(c *container) bool {
	newest := true
	n.state.edit(func() {
		for _, o := range n.state.containers {
			if o.uid == c.uid && o.info.Name == c.info.Name && o.info.Attempt > c.info.Attempt {
				newest = false
			}
		}
	})
	return newest
}

// deleteContainer takes away everything but the logs. The exit record goes
// last: until the container record is gone it may be all that tells how the
// container ended.
func (n *Native) deleteContainer(ctx context.Context, c *container) error {
	if err := n.destroyTask(ctx, c); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return n.deleteRecord(gctx, c.id, failpoint.CRIContainerDeleteBefore, failpoint.CRIContainerDeleteAfter)
	})
	if c.snapshotter != "" {
		g.Go(func() error { return n.removeSnapshot(gctx, c) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := n.removeVolumes(c.id); err != nil {
		return err
	}
	if err := shimapi.RemoveExit(n.cfg.RunDir, c.id); err != nil {
		return err
	}
	for _, path := range []string{n.startedPath(c.id), n.stopPath(c.id)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove mark of container: %w", err)
		}
	}
	return nil
}

// removeSnapshot runs beside the deletion of the record that refers to it: if
// only the record goes, containerd's collector takes the snapshot.
func (n *Native) removeSnapshot(ctx context.Context, c *container) error {
	if err := failpoint.At(failpoint.CRISnapshotRemoveBefore); err != nil {
		return err
	}
	ctx, cancel := n.call(ctx)
	defer cancel()
	if err := ignoreNotFound(n.client.SnapshotService(c.snapshotter).Remove(ctx, c.id)); err != nil {
		return fmt.Errorf("remove root file system: %w", err)
	}
	return failpoint.At(failpoint.CRISnapshotRemoveAfter)
}

// destroyTask deletes c's task whatever state it is in; only a failed or half
// made start leaves one that is not stopped.
func (n *Native) destroyTask(ctx context.Context, c *container) error {
	err := n.deleteTask(ctx, c)
	if err == nil || !errdefs.IsFailedPrecondition(err) {
		return err
	}
	_, kerr := n.client.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: c.id, Signal: uint32(unix.SIGKILL), All: true})
	if kerr = ignoreNotFound(native(kerr)); kerr != nil {
		n.log.Debug("cannot kill a task", "container", c.id, "err", kerr)
	}
	if err := n.killCgroup(ctx, c.cgroup); err != nil {
		return err
	}
	wctx, cancel := n.call(ctx)
	defer cancel()
	_, werr := n.client.TaskService().Wait(wctx, &tasks.WaitRequest{ContainerID: c.id})
	if werr = ignoreNotFound(native(werr)); werr != nil {
		return fmt.Errorf("wait for a killed task: %w", errors.Join(werr, kerr))
	}
	return n.deleteTask(ctx, c)
}

// removeLogs removes a log file and its rotated ones, by names only: the
// directory is the pod's, and a link in it is removed, not followed.
func removeLogs(path string) error {
	if path == "" {
		return nil
	}
	dir, base := filepath.Split(path)
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open log directory: %w", err)
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("list logs: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if e.Name() == base || strings.HasPrefix(e.Name(), base+".") {
			errs = append(errs, root.Remove(e.Name()))
		}
	}
	return errors.Join(errs...)
}
