package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/test/bed"
	"nodeagent/test/image"
	"nodeagent/test/measure"
)

const lineBytes = 100 // of podtool flood

// logFlood lets a container print as fast as it can and holds the log against a
// plain cat from such a pipe to a file.
func (b *bench) logFlood(ctx context.Context) error {
	b.say(fmt.Sprintf("numbered lines for %v, by cat and by a pod", b.flood))
	plain, err := b.plainCat(ctx)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, b.flood+limit)
	defer cancel()
	text := manifest("flood", fmt.Sprintf("/podtool, flood, %v", b.flood), "Never")
	if err := b.agent.WriteManifest("flood", text); err != nil {
		return err
	}
	cpu, uid, err := b.floodEnds(bounded)
	if err != nil {
		return err
	}
	dir := filepath.Join(b.agent.PodLogs(), "default_flood-node_"+uid, "c")
	log, err := bed.CheckLog(dir)
	if err != nil {
		return err
	}
	if log.First != 0 || log.Printed != log.Next {
		return fmt.Errorf("%s has lines %d to %d of %d", dir, log.First, log.Next-1, log.Printed)
	}
	size := float64(log.Next) * lineBytes / 1e6
	rate := size / b.flood.Seconds()
	// Twice as fast is a half: smaller is better in every row.
	b.rows[flood] = measure.Row{Work: fmt.Sprintf("%v of numbered lines into a log", b.flood), Ours: fmt.Sprintf("%.0f MB/s", rate),
		Peer: fmt.Sprintf("%.0f MB/s", plain), Value: plain / rate, Limit: 2, Unit: "× slower",
		Note: fmt.Sprintf("every number there; shim %.2f ms CPU a MB", cpu.Seconds()*1000/size)}
	if err := b.agent.RemoveManifest("flood"); err != nil {
		return err
	}
	_, err = b.allGone(ctx, 0)
	return err
}

// floodEnds waits for the pod's end and returns the CPU time that its shim took:
// the last that was seen of it, for the shim may be told to go with the pod.
func (b *bench) floodEnds(ctx context.Context) (cpu time.Duration, uid string, err error) {
	ended := make(chan error, 1)
	go func() {
		ended <- b.agent.WaitPods(ctx, func(pods map[string]*corev1.Pod) bool {
			p := pods["default/flood-node"]
			if p == nil {
				return false
			}
			uid = string(p.UID)
			return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
		})
	}()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, pid := range b.shims() {
			if c, err := measure.CPUTime(pid); err == nil {
				cpu = max(cpu, c)
			}
		}
		select {
		case err := <-ended:
			return cpu, uid, err
		case <-tick.C:
		}
	}
}

// plainCat measures the same generator through cat into a file on the same disk,
// in MB of lines a second.
func (b *bench) plainCat(ctx context.Context) (float64, error) {
	root, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	tool, err := image.Podtool(ctx, root)
	if err != nil {
		return 0, err
	}
	path := filepath.Join(b.bed.Dir(), "tmp", "podtool")
	if err := os.WriteFile(path, tool, 0o755); err != nil {
		return 0, err
	}
	file := filepath.Join(b.bed.Dir(), "tmp", "flood.log")
	defer os.Remove(path)
	defer os.Remove(file)
	// exec: what is measured is two processes and a pipe.
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", fmt.Sprintf("%s flood %v | cat >%s", path, b.flood, file))
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("print into a file: %w\n%s", err, out)
	}
	info, err := os.Stat(file)
	if err != nil {
		return 0, err
	}
	return float64(info.Size()) / 1e6 / b.flood.Seconds(), nil
}
