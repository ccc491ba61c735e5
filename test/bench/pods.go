package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/test/bed"
	"nodeagent/test/image"
	"nodeagent/test/measure"
)

// limit bounds every wait: a daemon that does not do it fails the bench.
const limit = 2 * time.Minute

func manifest(name, command, policy string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  restartPolicy: %s
  containers:
  - name: c
    image: %s
    command: [%s]
`, name, policy, image.Example, command)
}

func sleeper(name string) string { return manifest(name, strings.Join(argv(), ", "), "Always") }

// oneByOne measures a pod's way up and down, one pod after another.
func (b *bench) oneByOne(ctx context.Context) error {
	b.say(fmt.Sprintf("%d pods one after another", b.single))
	var up, down []float64
	for i := range b.single + 1 { // the first one warms up and does not count
		name := fmt.Sprintf("one-%d", i)
		created, err := b.create(ctx, name)
		if err != nil {
			return err
		}
		removed, err := b.remove(ctx, name)
		if err != nil {
			return err
		}
		if i > 0 {
			up, down = append(up, created), append(down, removed)
		}
	}
	b.measured(createOne, "manifest appears until its container runs", measure.Median(up),
		fmt.Sprintf("median of %d", b.single))
	b.measured(removeOne, "manifest removed until all is gone", measure.Median(down),
		fmt.Sprintf("median of %d", b.single))
	return nil
}

func (b *bench) create(ctx context.Context, name string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	b.seen.Reset()
	start := time.Now()
	if err := b.agent.WriteManifest(name, sleeper(name)); err != nil {
		return 0, err
	}
	at, err := b.seen.Wait(ctx, measure.TaskStarted, 1)
	if err != nil {
		return 0, err
	}
	return at.Sub(start).Seconds(), b.running(ctx, 1)
}

// running waits until the daemon says that n pods run, and until their
// processes obey SIGTERM: a program's first milliseconds as the init of a PID
// namespace do not, and would be measured as a grace period.
func (b *bench) running(ctx context.Context, n int) error {
	err := b.agent.WaitPods(ctx, func(pods map[string]*corev1.Pod) bool {
		up := 0
		for _, p := range pods {
			if p.Status.Phase == corev1.PodRunning && bed.Ready(p) {
				up++
			}
		}
		return up >= n
	})
	if err != nil {
		return err
	}
	return b.bed.WaitCatches(ctx, "podtool", 15)
}

func (b *bench) remove(ctx context.Context, name string) (float64, error) {
	records, err := b.records(ctx)
	if err != nil {
		return 0, err
	}
	b.seen.Reset()
	start := time.Now()
	if err := b.agent.RemoveManifest(name); err != nil {
		return 0, err
	}
	end, err := b.allGone(ctx, records)
	return end.Sub(start).Seconds(), err
}

// records counts the containers in containerd, sandboxes included.
func (b *bench) records(ctx context.Context) (int, error) {
	all, err := b.ctd.ContainerService().List(ctx)
	return len(all), err
}

// allGone waits until n records and everything else of all pods are gone.
func (b *bench) allGone(ctx context.Context, n int) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		deleted, err := b.seen.Count(measure.RecordGone)
		if err != nil {
			return time.Time{}, err
		}
		left := ""
		if deleted >= n {
			if left = b.left(); left == "" {
				return time.Now(), nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("wait until all is gone (%d of %d records are, first left: %s): %w", deleted, n, left, ctx.Err())
		}
	}
}

// left tells one thing of a pod that is still on the node, or "".
func (b *bench) left() string {
	dirs := []string{b.bed.PinDir(), filepath.Join(b.agent.RootDir(), "pods"), b.agent.PodLogs()}
	for _, d := range dirs {
		if entries, _ := os.ReadDir(d); len(entries) > 0 {
			return filepath.Join(d, entries[0].Name())
		}
	}
	for _, h := range []string{"*", "."} {
		found, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup", h, b.bed.CgroupRoot(), "kubepods/besteffort/pod*"))
		if len(found) > 0 {
			return found[0]
		}
	}
	return ""
}

// together measures many pods at once: up, at rest, over a restart, down.
func (b *bench) together(ctx context.Context) error {
	return b.atOnce(ctx, b.atRest, b.restart)
}

// burst measures them once more: up and down.
func (b *bench) burst(ctx context.Context) error { return b.atOnce(ctx) }

// atOnce measures many pods at once, up and down, with what is to be measured
// while they are there.
func (b *bench) atOnce(ctx context.Context, between ...func(context.Context) error) error {
	b.say(fmt.Sprintf("%d pods at once", b.many))
	before, err := b.bed.Snapshot(ctx)
	if err != nil {
		return err
	}
	created, err := b.createAll(ctx)
	if err != nil {
		return err
	}
	b.measured(createMany, fmt.Sprintf("%d manifests at once until all run", b.many), created, "floor: 4 at a time")
	for _, step := range between {
		if err := step(ctx); err != nil {
			return err
		}
	}
	removed, err := b.removeAll(ctx)
	if err != nil {
		return err
	}
	b.measured(removeMany, fmt.Sprintf("%d manifests removed at once until all is gone", b.many), removed, "floor: 4 at a time")
	settled, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := b.bed.WaitSame(settled, before); err != nil {
		b.say("warning: " + err.Error())
	}
	return nil
}

// createAll writes every manifest and waits until all containers run.
func (b *bench) createAll(ctx context.Context) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	b.seen.Reset()
	cpu, start := b.cpuTotal(), time.Now()
	for i := range b.many {
		name := fmt.Sprintf("many-%d", i)
		if err := b.agent.WriteManifest(name, sleeper(name)); err != nil {
			return 0, err
		}
	}
	end, err := b.seen.Wait(ctx, measure.TaskStarted, b.many)
	if err != nil {
		return 0, err
	}
	b.cpu[createMany] = append(b.cpu[createMany], b.cpuTotal()-cpu)
	return end.Sub(start).Seconds(), b.running(ctx, b.many)
}

// removeAll removes every manifest, that of the restart too.
func (b *bench) removeAll(ctx context.Context) (float64, error) {
	records, err := b.records(ctx)
	if err != nil {
		return 0, err
	}
	b.seen.Reset()
	cpu, start := b.cpuTotal(), time.Now()
	if err := b.agent.RemoveManifests(); err != nil {
		return 0, err
	}
	end, err := b.allGone(ctx, records)
	b.cpu[removeMany] = append(b.cpu[removeMany], b.cpuTotal()-cpu)
	return end.Sub(start).Seconds(), err
}

// restart kills the daemon and measures until it has adopted all pods and has
// started one that appeared meanwhile.
func (b *bench) restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	before, err := b.bed.Running(ctx)
	if err != nil {
		return err
	}
	if err := b.agent.Kill(); err != nil {
		return err
	}
	if err := b.agent.WriteManifest("late", sleeper("late")); err != nil {
		return err
	}
	b.seen.Reset()
	start := time.Now()
	if err := b.agent.Launch(); err != nil {
		return err
	}
	late, err := b.seen.Wait(ctx, measure.TaskStarted, 1)
	if err != nil {
		return err
	}
	if err := b.running(ctx, b.many+1); err != nil {
		return err
	}
	all := time.Since(start).Seconds()
	now, err := b.bed.Running(ctx)
	if err != nil {
		return err
	}
	for id, mark := range before {
		if now[id] != mark {
			return fmt.Errorf("container %s was touched by the daemon's restart: %q, now %q", id, mark, now[id])
		}
	}
	b.absolute(restartMany, fmt.Sprintf("kill -9 and restart with %d pods until all adopted and a new one runs", b.many), measure.MS(all), all, 1, "s",
		"the new one ran after "+measure.MS(late.Sub(start).Seconds()))
	return nil
}
