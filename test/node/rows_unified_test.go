package node

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// unified proves on cgroup v2 what cgroups proves on v1. A container has a cgroup
// namespace there and does not see where it is; so this looks from outside.
func (n *rowsNode) unified(t *testing.T) {
	for name, want := range map[string]struct {
		class  corev1.PodQOSClass
		score  int
		limits map[string]string // file of the container; "pod:" of the pod
	}{
		"plain": {corev1.PodQOSBestEffort, 1000, map[string]string{
			"cpu.weight": "1", "cpu.max": "max 100000", "memory.max": "max", "memory.oom.group": "1", "pod:pids.max": "4096"}},
		"guarant": {corev1.PodQOSGuaranteed, -997, map[string]string{
			"cpu.weight": "10", "cpu.max": "25000 100000", "memory.max": "67108864", "memory.oom.group": "1",
			"pod:cpu.weight": "10", "pod:cpu.max": "25000 100000", "pod:memory.max": "67108864"}},
		"burst": {corev1.PodQOSBurstable, burstableScore(t, 256<<20), map[string]string{
			"cpu.weight": "20", "memory.max": "536870912", "memory.oom.group": "1",
			"pod:cpu.weight": "20", "pod:memory.max": "536870912", "pod:cpu.max": "max 100000"}},
	} {
		p := n.pod(t, name, "running", inPhase(corev1.PodRunning))
		s := n.shown(t, name, "app")
		if p.Status.QOSClass != want.class {
			t.Errorf("pod %s is %s, want %s", name, p.Status.QOSClass, want.class)
		}
		if got := strings.TrimSpace(s.Cgroup); got != "0::/" {
			t.Errorf("pod %s sees its cgroup as %q, want a namespace of its own", name, got)
		}
		if score, _ := strconv.Atoi(s.OOMScore); score != max(want.score, lowestScore(t)) {
			t.Errorf("pod %s has oom_score_adj %d, want %d (lowest possible %d)", name, score, want.score, lowestScore(t))
		}
		of, own := n.unifiedDirs(p)
		for file, value := range want.limits {
			path := filepath.Join(own, file)
			if leaf, ofPod := strings.CutPrefix(file, "pod:"); ofPod {
				path = filepath.Join(of, leaf)
			}
			b, err := os.ReadFile(path)
			if got := strings.TrimSpace(string(b)); err != nil || got != value {
				t.Errorf("pod %s: %s is %q, %v, want %s", name, file, got, err, value)
			}
		}
		if b, err := os.ReadFile(filepath.Join(own, "cgroup.procs")); err != nil || len(b) == 0 {
			t.Errorf("pod %s: no process in %s: %v", name, own, err)
		}
	}
}

// unifiedDirs are the directories of a pod and of its only container on cgroup v2:
// slices and a scope with systemd's driver.
func (n *rowsNode) unifiedDirs(p *corev1.Pod) (ofPod, ofContainer string) {
	names := []string{strings.Trim(n.b.CgroupRoot(), "/"), "kubepods"}
	if class := p.Status.QOSClass; class != corev1.PodQOSGuaranteed {
		names = append(names, strings.ToLower(string(class)))
	}
	names = append(names, "pod"+string(p.UID))
	id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
	ofPod = "/sys/fs/cgroup"
	if *cgroupDriver != "systemd" {
		ofPod = filepath.Join(ofPod, filepath.Join(names...))
		return ofPod, filepath.Join(ofPod, id)
	}
	for i := range names {
		names[i] = strings.ReplaceAll(names[i], "-", "_")
		ofPod = filepath.Join(ofPod, strings.Join(names[:i+1], "-")+".slice")
	}
	return ofPod, filepath.Join(ofPod, "cri-containerd-"+id+".scope")
}
