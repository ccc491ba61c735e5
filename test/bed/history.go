package bed

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	corev1 "k8s.io/api/core/v1"
)

// History holds what a watcher saw of pods against what may be seen: a phase
// never goes back, a restart count never falls, and how a container ended never
// changes. Its methods may be called from any goroutine.
type History struct {
	mu       sync.Mutex
	phase    map[string]corev1.PodPhase
	restarts map[string]int32
	ends     map[string]int32
	illegal  []string
}

// NewHistory returns one that has seen nothing.
func NewHistory() *History {
	return &History{phase: map[string]corev1.PodPhase{}, restarts: map[string]int32{}, ends: map[string]int32{}}
}

var phaseRank = map[corev1.PodPhase]int{
	"": 0, corev1.PodPending: 0, corev1.PodRunning: 1, corev1.PodSucceeded: 2, corev1.PodFailed: 2,
}

// See takes one change.
func (h *History) See(c Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := c.Pod
	uid := string(p.UID)
	if c.Gone {
		delete(h.phase, uid) // a static pod that comes back has the same UID
		for _, s := range statuses(p) {
			delete(h.restarts, uid+"/"+s.Name)
		}
		return
	}
	was, now := h.phase[uid], p.Status.Phase
	if phaseRank[now] < phaseRank[was] || phaseRank[was] == 2 && now != was {
		h.report("pod %s went from %s to %s", p.Name, was, now)
	}
	h.phase[uid] = now
	for _, s := range statuses(p) {
		key := uid + "/" + s.Name
		if s.RestartCount < h.restarts[key] {
			h.report("container %s of pod %s had %d restarts and now has %d", s.Name, p.Name, h.restarts[key], s.RestartCount)
		}
		h.restarts[key] = s.RestartCount
		h.end(p, s.State.Terminated)
		h.end(p, s.LastTerminationState.Terminated)
	}
}

func (h *History) end(p *corev1.Pod, t *corev1.ContainerStateTerminated) {
	if t == nil || t.ContainerID == "" {
		return
	}
	if was, known := h.ends[t.ContainerID]; known && was != t.ExitCode {
		h.report("container %s of pod %s ended with %d and now with %d", t.ContainerID, p.Name, was, t.ExitCode)
	}
	h.ends[t.ContainerID] = t.ExitCode
}

func (h *History) report(format string, args ...any) {
	h.illegal = append(h.illegal, fmt.Sprintf(format, args...))
}

// Illegal returns what must not have been seen.
func (h *History) Illegal() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.illegal...)
}

func statuses(p *corev1.Pod) []corev1.ContainerStatus {
	return append(append([]corev1.ContainerStatus(nil), p.Status.InitContainerStatuses...), p.Status.ContainerStatuses...)
}

// FindBytes returns the files below dirs that hold secret: a canary that a test
// put where only one place may know it.
func FindBytes(secret []byte, dirs ...string) ([]string, error) {
	var found []string
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil // gone meanwhile, or a socket
			}
			b, err := os.ReadFile(path)
			if err == nil && bytes.Contains(b, secret) {
				found = append(found, path)
			}
			return nil
		})
		if err != nil {
			return found, err
		}
	}
	return found, nil
}

// FDs counts the open files of the daemon.
func (p *Process) FDs() int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Pid))
	return len(entries)
}
