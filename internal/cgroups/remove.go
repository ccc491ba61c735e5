package cgroups

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/failpoint"
)

// RemovePod removes a pod's cgroup from every hierarchy, with all that an OCI
// runtime left below it. What still runs there is killed. It waits for the end
// of the processes as long as ctx allows, and is idempotent: a pod without a
// cgroup is removed.
//
// An OCI runtime that is still at work on a container of the pod may make the
// directories again behind its back; they are found by Pods and go with the
// next call. So it comes after the runtime's last call for the pod.
func (t *Tree) RemovePod(ctx context.Context, uid types.UID) error {
	if t.checkUID(uid) != nil {
		return nil // nothing can be there
	}
	if p := t.known(uid); p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.gone = true // whatever happens: nothing of a pod in removal is put back
	}
	if err := failpoint.At(failpoint.CgroupsRemoveBefore); err != nil {
		return err
	}
	for _, qos := range classes() {
		if err := t.remove(ctx, t.podPath(uid, qos)); err != nil {
			return fmt.Errorf("remove cgroup of pod %s: %w", uid, err)
		}
	}
	if err := failpoint.At(failpoint.CgroupsRemoveAfter); err != nil {
		return err
	}
	return t.forget(ctx, uid)
}

func (t *Tree) known(uid types.UID) *podCgroup {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pods[uid]
}

func (t *Tree) remove(ctx context.Context, cgroup string) error {
	busy := t.existing(cgroup)
	if len(busy) == 0 && t.systemd == nil {
		return nil
	}
	if t.systemd != nil {
		if err := t.kill(ctx, busy); err != nil {
			return err
		}
		if err := t.systemd.stopSlice(ctx, cgroup); err != nil {
			return err
		}
	}
	busy, err := t.rmdirs(busy)
	for wait := time.Millisecond; len(busy) > 0; wait = min(2*wait, 50*time.Millisecond) {
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		if err := t.kill(ctx, busy); err != nil {
			return err
		}
		if busy, err = t.rmdirs(busy); len(busy) == 0 {
			return nil
		}
		if werr := pause(ctx, wait); werr != nil {
			return fmt.Errorf("%w: %w", err, werr)
		}
	}
	return nil
}

// rmdirs removes the directories with all below them, and returns those that
// are busy with the first error.
func (t *Tree) rmdirs(dirs []cgroupDir) (busy []cgroupDir, first error) {
	for _, d := range dirs {
		if err := t.rmdirAll(d.path); err != nil {
			busy = append(busy, d)
			first = cmpErr(first, err)
		}
	}
	return busy, first
}

// rmdirAll removes a directory, the ones below it first. Most have none, so the
// bare removal is tried before they are looked for.
func (t *Tree) rmdirAll(dir string) error {
	err := t.kernel.Rmdir(dir)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	below := children(dir)
	for _, child := range below {
		if err := t.rmdirAll(filepath.Join(dir, child)); err != nil {
			return err
		}
	}
	if len(below) == 0 {
		return err
	}
	if err := t.kernel.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}
