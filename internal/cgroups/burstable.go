package cgroups

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// seed takes the CPU requests of the burstable pods that are in the tree, as
// their cgroups tell them, until somebody asks for those pods.
func (t *Tree) seed(ctx context.Context) error {
	found, err := t.Pods(ctx)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range found {
		if p.QOS != corev1.PodQOSBurstable || t.pods[p.UID] != nil {
			continue
		}
		t.pods[p.UID] = &podCgroup{path: p.Path, milli: t.requestOf(p.Path)}
	}
	return nil
}

// requestOf reads a pod's CPU request in millicores back from its cgroup, as
// well as the kernel's unit allows; 0 if it cannot be read.
func (t *Tree) requestOf(cgroup string) int64 {
	name, v2 := "cpu.shares", t.V2()
	if v2 {
		name = "cpu.weight"
	}
	b, err := os.ReadFile(filepath.Join(t.dir("cpu", cgroup), name))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		return 0
	}
	if v2 {
		if n <= 1 {
			return 0
		}
		n = (n-1)*262142/9999 + 2 // the inverse of pod.CPUWeight
	}
	if n <= pod.MinShares {
		return 0
	}
	return int64(n) * 1000 / 1024
}

// count brings the shares of the burstable class up to date with the requests
// of its pods, if they changed. Kubelet does so once a minute.
func (t *Tree) count(ctx context.Context) error {
	t.classMu.Lock()
	defer t.classMu.Unlock()
	t.mu.Lock()
	sum, had := t.sumBurstable(), t.burstable
	t.mu.Unlock()
	if pod.CPUShares(sum) == pod.CPUShares(had) {
		return nil
	}
	r := pod.BurstableResources(sum)
	class := t.class(corev1.PodQOSBurstable)
	if t.systemd != nil {
		if err := t.systemd.setProperties(ctx, class, propertiesOf(t.V2(), r)); err != nil {
			return err
		}
	}
	settings := t.settingsOf(r)
	if len(settings) > 0 && settings[0].controller == "cpu" {
		err := t.kernel.Write(t.file(class, settings[0]), settings[0].value)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return limitError(class, err)
		}
	}
	t.mu.Lock()
	t.burstable = sum
	t.mu.Unlock()
	return nil
}

// sumBurstable adds up what counts for the burstable class; t.mu is held.
func (t *Tree) sumBurstable() int64 {
	var sum int64
	for _, p := range t.pods {
		if sum += p.milli; sum < 0 {
			return 1 << 62
		}
	}
	return sum
}

// forget drops a pod that is gone from the tree.
func (t *Tree) forget(ctx context.Context, uid types.UID) error {
	t.mu.Lock()
	delete(t.pods, uid)
	t.mu.Unlock()
	return t.count(ctx)
}
