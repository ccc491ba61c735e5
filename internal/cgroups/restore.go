package cgroups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
)

// Run puts back foreign changes of limits until ctx is done: as soon as the
// kernel tells of a write to a control file, and every Config.RestoreEvery in
// any case. Where it cannot tell (no inotify instance is left), Run looks every
// 5 s.
func (t *Tree) Run(ctx context.Context) error {
	every := t.restoreEvery
	w, err := newWatch()
	if err != nil {
		t.report(nil, fmt.Errorf("watch limits: %w", err))
		return t.look(ctx, min(every, unwatchedEvery))
	}
	t.startWatch(w)
	var done sync.WaitGroup
	done.Go(func() { t.follow(ctx, w) })
	stop := context.AfterFunc(ctx, w.close)
	err = t.look(ctx, every)
	stop()
	t.startWatch(nil)
	w.close()
	done.Wait()
	return err
}

// unwatchedEvery keeps a foreign change below 10 s without a watch.
const unwatchedEvery = 5 * time.Second

// look restores all limits at once and then at an interval.
func (t *Tree) look(ctx context.Context, every time.Duration) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		t.report(t.RestoreLimits(ctx))
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (t *Tree) report(changes []Change, err error) {
	if t.onChange == nil {
		return
	}
	for _, c := range changes {
		t.onChange(c)
	}
	if err != nil && len(changes) == 0 {
		t.onChange(Change{Cgroup: t.kubepods(), Err: err})
	}
}

// Foreign counts the changes by somebody else that were found so far.
func (t *Tree) Foreign() uint64 { return t.foreign.Load() }

// RestoreLimits compares the limits of kubepods, the classes and every pod that
// EnsurePod was called for with what they should be, and writes what somebody
// else changed, and what systemd takes from containers. A pod that is being
// changed by EnsurePod or RemovePod right now is left to it, one whose cgroup was
// removed to its worker.
func (t *Tree) RestoreLimits(ctx context.Context) ([]Change, error) {
	targets := t.classTargets()
	t.mu.Lock()
	for _, p := range t.pods {
		targets = append(targets, target{pod: p})
		if t.oomGroup {
			targets = append(targets, target{pod: p, below: true})
		}
	}
	t.mu.Unlock()
	var all []Change
	var errs []error
	for _, to := range targets {
		if ctx.Err() != nil {
			break
		}
		changes, err := t.restore(to)
		all = append(all, changes...)
		errs = append(errs, err)
	}
	return all, errors.Join(errs...)
}

// restore puts one cgroup right.
func (t *Tree) restore(to target) ([]Change, error) {
	t.mu.Lock()
	node := t.node
	t.mu.Unlock()
	if node == nil {
		return nil, nil
	}
	var changes []Change
	var err error
	switch {
	case to.pod != nil:
		if !to.pod.mu.TryLock() {
			return nil, nil
		}
		defer to.pod.mu.Unlock()
		if !to.pod.ensured || to.pod.gone {
			return nil, nil
		}
		if to.below {
			err = t.keepOOMGroup(to.pod)
		} else {
			changes, err = t.apply(to.pod.path, to.pod.settings)
		}
	case to.class == t.kubepods():
		changes, err = t.apply(to.class, t.settingsOf(*node))
	case to.class == t.class(corev1.PodQOSBestEffort):
		changes, err = t.apply(to.class, t.settingsOf(pod.BestEffortResources()))
	default:
		changes, err = t.restoreBurstable()
	}
	t.foreign.Add(uint64(len(changes)))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		err = nil
	}
	return changes, err
}

func (t *Tree) restoreBurstable() ([]Change, error) {
	t.classMu.Lock()
	defer t.classMu.Unlock()
	t.mu.Lock()
	milli := t.burstable
	t.mu.Unlock()
	return t.apply(t.class(corev1.PodQOSBurstable), t.settingsOf(pod.BurstableResources(milli)))
}
