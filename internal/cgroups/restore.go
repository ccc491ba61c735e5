package cgroups

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
)

// Run puts back foreign changes of limits until ctx is done, looking for them
// every Config.RestoreEvery. The kernel does not tell of a write to a control
// file without a watch for every cgroup of every pod; reading the files back is
// cheaper and bounded.
func (t *Tree) Run(ctx context.Context) error {
	ticker := time.NewTicker(t.restoreEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		changes, err := t.RestoreLimits(ctx)
		if t.onChange == nil {
			continue
		}
		for _, c := range changes {
			t.onChange(c)
		}
		if err != nil && len(changes) == 0 && ctx.Err() == nil {
			t.onChange(Change{Cgroup: t.kubepods(), Err: err})
		}
	}
}

// Foreign counts the changes by somebody else that were found so far.
func (t *Tree) Foreign() uint64 { return t.foreign.Load() }

// RestoreLimits compares the limits of kubepods, the classes and every pod that
// EnsurePod was called for with what they should be, and writes what somebody
// else changed. A pod that is being changed by EnsurePod or RemovePod right now
// is left to it, one whose cgroup was removed to its worker.
func (t *Tree) RestoreLimits(ctx context.Context) ([]Change, error) {
	t.mu.Lock()
	node := t.node
	pods := make([]*podCgroup, 0, len(t.pods))
	for _, p := range t.pods {
		pods = append(pods, p)
	}
	t.mu.Unlock()
	if node == nil {
		return nil, nil
	}
	var all []Change
	var errs []error
	note := func(changes []Change, err error) {
		all = append(all, changes...)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, err)
		}
	}
	note(t.apply(t.kubepods(), t.settingsOf(*node)))
	note(t.apply(t.class(corev1.PodQOSBestEffort), t.settingsOf(pod.BestEffortResources())))
	note(t.restoreBurstable())
	for _, p := range pods {
		if ctx.Err() != nil {
			break
		}
		if !p.mu.TryLock() {
			continue
		}
		if p.ensured && !p.gone {
			note(t.apply(p.path, p.settings))
		}
		p.mu.Unlock()
	}
	t.foreign.Add(uint64(len(all)))
	return all, errors.Join(errs...)
}

func (t *Tree) restoreBurstable() ([]Change, error) {
	t.classMu.Lock()
	defer t.classMu.Unlock()
	t.mu.Lock()
	milli := t.burstable
	t.mu.Unlock()
	return t.apply(t.class(corev1.PodQOSBurstable), t.settingsOf(pod.BurstableResources(milli)))
}
