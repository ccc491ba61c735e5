package bed

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Change is one line of the daemon's watch.
type Change struct {
	Gone bool
	Pod  *corev1.Pod
}

// http is a client of the daemon's socket.
func (a *AgentProcess) http() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", a.Socket())
		},
	}}
}

// Get asks the daemon's socket for a path such as /v1/pods.
func (a *AgentProcess) Get(ctx context.Context, path string) ([]byte, error) {
	body, err := a.open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func (a *AgentProcess) open(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://nodeagent"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := a.http().Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		resp.Body.Close()
		return nil, fmt.Errorf("get %s: %s: %s", path, resp.Status, b)
	}
	return resp.Body, nil
}

// Pods returns the daemon's pods with their status.
func (a *AgentProcess) Pods(ctx context.Context) ([]corev1.Pod, error) {
	b, err := a.Get(ctx, "/v1/pods")
	if err != nil {
		return nil, err
	}
	var list corev1.PodList
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("parse /v1/pods: %w", err)
	}
	return list.Items, nil
}

// Watch yields every change of a pod's status, beginning with all pods as they
// are, until ctx ends or the daemon does.
func (a *AgentProcess) Watch(ctx context.Context) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		body, err := a.open(ctx, "/v1/watch")
		if err != nil {
			yield(Change{}, err)
			return
		}
		defer body.Close()
		s := bufio.NewScanner(body)
		s.Buffer(nil, 8<<20)
		for s.Scan() {
			var line struct {
				Type   string      `json:"type"`
				Object *corev1.Pod `json:"object"`
			}
			if err := json.Unmarshal(s.Bytes(), &line); err != nil {
				yield(Change{}, fmt.Errorf("parse a line of /v1/watch: %w", err))
				return
			}
			if line.Object == nil {
				continue // a bookmark or a heartbeat
			}
			if !yield(Change{Gone: line.Type == "DELETED", Pod: line.Object}, nil) {
				return
			}
		}
		err = s.Err()
		if err == nil {
			err = errors.New("the daemon ended the watch")
		}
		yield(Change{}, err)
	}
}

// WaitPods waits until ok says yes of the pods that the daemon shows, by name. It asks with
// each change, from the first pod that is told of: of what is not there it knows nothing,
// and where there is no pod it asks nobody (WaitGone).
func (a *AgentProcess) WaitPods(ctx context.Context, ok func(map[string]*corev1.Pod) bool) error {
	pods := map[string]*corev1.Pod{}
	for {
		for c, err := range a.Watch(ctx) {
			if err != nil {
				break
			}
			name := c.Pod.Namespace + "/" + c.Pod.Name
			if c.Gone {
				delete(pods, name)
			} else {
				pods[name] = c.Pod
			}
			if ok(pods) {
				return nil
			}
		}
		// The daemon is away, or ends its watches: ask again, and soon.
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for pods: %w; last seen: %s\n%s", ctx.Err(), brief(pods), tail(a.Log(), 40))
		case <-time.After(20 * time.Millisecond):
		}
		clear(pods)
	}
}

// WaitGone waits until the daemon shows none of these pods (namespace/name); without
// names, no pod at all. A watch begins pod by pod, and says nothing of those that had gone
// before: only the list tells who is not there.
func (a *AgentProcess) WaitGone(ctx context.Context, names ...string) error {
	for {
		left, err := a.Pods(ctx)
		if len(names) > 0 {
			left = slices.DeleteFunc(left, func(p corev1.Pod) bool { return !slices.Contains(names, p.Namespace+"/"+p.Name) })
		}
		if err == nil && len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for pods to be gone: %w; %d are left, %v\n%s", ctx.Err(), len(left), err, tail(a.Log(), 40))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// WaitPhase waits until the pod namespace/name shows the phase.
func (a *AgentProcess) WaitPhase(ctx context.Context, name string, phase corev1.PodPhase) error {
	return a.WaitPods(ctx, func(pods map[string]*corev1.Pod) bool {
		p := pods[name]
		return p != nil && p.Status.Phase == phase
	})
}

// WaitReadyPods waits until n pods are there and all of them Ready or Succeeded.
func (a *AgentProcess) WaitReadyPods(ctx context.Context, n int) error {
	return a.WaitPods(ctx, func(pods map[string]*corev1.Pod) bool {
		for _, p := range pods {
			if !Ready(p) {
				return false
			}
		}
		return len(pods) == n
	})
}

// Ready tells whether a pod is Ready, or has succeeded.
func Ready(p *corev1.Pod) bool {
	if p.Status.Phase == corev1.PodSucceeded {
		return true
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func brief(pods map[string]*corev1.Pod) string {
	s := ""
	for name, p := range pods {
		s += fmt.Sprintf("%s=%s ", name, p.Status.Phase)
	}
	return s
}
