package worker

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
)

// Why a restart is refused; errors.Is finds them.
var (
	ErrUnknown = errors.New("not found")
	ErrEnded   = errors.New("it does not run any more")
)

// Restart has a container of the pod restarted in its sandbox, or with "" all of the
// pod proper and the sidecars: each is stopped with grace and preStop hook and started
// again whatever its restart policy says; one that waits for its back-off starts at
// once. It returns when that is under way; a daemon that dies meanwhile leaves it to the
// next one. It may be called from any goroutine.
func (s *Set) Restart(namespace, name, container string) error {
	w := s.workerOf(namespace + "/" + name)
	if w == nil {
		return fmt.Errorf("pod %s/%s: %w", namespace, name, ErrUnknown)
	}
	d := w.wish()
	if d.Wish != pod.WishRun || d.Pod == nil {
		return fmt.Errorf("pod %s/%s is on its way out: %w", namespace, name, ErrEnded)
	}
	for _, p := range s.Pods() {
		if p.UID == w.uid && (p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed) {
			return fmt.Errorf("pod %s/%s has ended (%s): %w", namespace, name, p.Status.Phase, ErrEnded)
		}
	}
	names := pod.Restartable(d.Pod)
	if container == "" {
		w.restart(names)
		return nil
	}
	for _, n := range names {
		if n == container {
			w.restart([]string{n})
			return nil
		}
	}
	if pod.ContainerOf(d.Pod, container) != nil {
		return fmt.Errorf("container %q of pod %s/%s is an init or ephemeral container, which run once: %w", container, namespace, name, ErrEnded)
	}
	return fmt.Errorf("container %q of pod %s/%s: %w", container, namespace, name, ErrUnknown)
}

// workerOf finds the worker of a pod by its name.
func (s *Set) workerOf(name string) *worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.workers {
		if w.name == name {
			return w
		}
	}
	return nil
}

// restart asks the worker for the restart of the named containers.
func (w *worker) restart(names []string) {
	w.mu.Lock()
	w.asked = append(w.asked, names...)
	w.mu.Unlock()
	w.wake()
}

// takeRestarts makes what was asked for part of what is seen: the latest run of each
// container is to be followed by another.
func (w *worker) takeRestarts(state pod.RuntimeState) {
	w.mu.Lock()
	names := w.asked
	w.asked = nil
	w.mu.Unlock()
	for _, name := range names {
		delete(w.failed, pod.Op{Kind: pod.StartContainer, Object: name})
		if run := state.Latest(name); run != nil && run.State != pod.ContainerCreated {
			w.again[run.ID] = true
		}
	}
}
