package server

import (
	"io"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// healthz is the health port's answer, and that of one check by its name.
func (a *NodeAPI) healthz(w http.ResponseWriter, r *http.Request, args []string) {
	checks := a.cfg.Checks
	if len(args) == 1 {
		name := args[0]
		if name == "syncloop" {
			name = "pods" // what kubelet calls the loop that acts on pods
		}
		checks = nil
		for _, c := range a.cfg.Checks {
			if c.Name == name {
				checks = append(checks, c)
			}
		}
		if checks == nil && name != "ping" && name != "log" {
			http.Error(w, "404 page not found", http.StatusNotFound)
			return
		}
	}
	(&Health{Checks: checks}).healthz(w, r)
}

// metrics writes one set of figures.
func (a *NodeAPI) metrics(w http.ResponseWriter, r *http.Request, args []string) {
	name := ""
	if len(args) == 1 {
		name = args[0]
	}
	figures, ok := a.cfg.Metrics[name]
	if !ok {
		http.Error(w, "404 page not found", http.StatusNotFound)
		return
	}
	if writeMetrics(w, r, figures) != nil {
		panic(http.ErrAbortHandler) // half the figures must not look like all
	}
}

// pods are all pods of the node with their status.
func (a *NodeAPI) pods(w http.ResponseWriter, _ *http.Request, _ []string) {
	writePods(w, a.cfg.Pods.Pods())
}

// runningPods are those of which something runs, with no more than what runs
// there, as kubelet shows it.
func (a *NodeAPI) runningPods(w http.ResponseWriter, _ *http.Request, _ []string) {
	var running []*corev1.Pod
	for _, p := range a.cfg.Pods.Pods() {
		short := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace, UID: p.UID}}
		for _, s := range statuses(p) {
			if s.State.Running != nil {
				short.Spec.Containers = append(short.Spec.Containers, corev1.Container{Name: s.Name, Image: s.Image})
			}
		}
		if len(short.Spec.Containers) > 0 {
			running = append(running, short)
		}
	}
	writePods(w, running)
}

// statuses are those of all containers of a pod.
func statuses(p *corev1.Pod) []corev1.ContainerStatus {
	var all []corev1.ContainerStatus
	for _, some := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses, p.Status.EphemeralContainerStatuses} {
		all = append(all, some...)
	}
	return all
}

// writePods encodes one pod after the other: the whole list at once would cost its
// size twice.
func writePods(w http.ResponseWriter, pods []*corev1.Pod) {
	w.Header().Set("Content-Type", "application/json")
	before := `{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[`
	for _, p := range pods {
		if _, err := io.WriteString(w, before); err != nil || encode(w, p) != nil {
			return // who asked is gone
		}
		before = ","
	}
	if len(pods) > 0 {
		before = ""
	}
	_, _ = io.WriteString(w, before+"]}\n")
}
