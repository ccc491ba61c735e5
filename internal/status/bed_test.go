package status_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/status"
	"nodeagent/internal/status/statustest"
)

// bed is a node that tells an API server of its pods, in virtual time.
type bed struct {
	t      *testing.T
	api    *statustest.Server
	pods   *podSet
	client status.Client
	node   status.Node
	stuck  atomic.Int64 // how long it takes to say what the Node is
	rate   *rate.Limiter
	yield  atomic.Pointer[time.Time] // until when others shall wait

	mu     sync.Mutex
	writer *status.Writer
	blind  bool // the watch tells nothing
	end    func()
}

// live runs do on a bed whose daemon was started, and holds it at the end against what
// a node may never write.
func live(t *testing.T, do func(b *bed)) {
	t.Helper()
	slowly(t, nil, do)
}

// slowly does so where the API server may only be asked so often.
func slowly(t *testing.T, often *rate.Limiter, do func(b *bed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bed{t: t, rate: often, api: statustest.New(), pods: &podSet{pods: map[types.UID]told{}}, node: status.Node{Name: "node", UID: "node-uid"}}
		rest, stop, err := b.api.Serve()
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		b.client = status.NewClient(rest)
		b.api.OnChange(b.offer)
		b.start()
		do(b)
		b.stop()
		for _, what := range b.api.Illegal() {
			t.Error(what)
		}
	})
}

// start starts a daemon, which reads the API server first.
func (b *bed) start() {
	w, err := status.New(status.Config{
		Pods: b.pods, API: b.client, Rate: b.rate, Logger: slog.New(slog.DiscardHandler),
		Node:  func() status.Node { time.Sleep(time.Duration(b.stuck.Load())); return b.node },
		Yield: func(until time.Time) { b.yield.Store(&until) },
	})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan struct{})
	b.mu.Lock()
	b.writer = w
	b.mu.Unlock()
	b.end = func() { cancel(); <-done }
	go func() {
		_ = w.Run(ctx)
		close(done)
	}()
	b.offer()
}

func (b *bed) stop() {
	b.mu.Lock()
	b.writer = nil
	b.mu.Unlock()
	b.end()
}

// offer is what the source does with each change that the watch shows.
func (b *bed) offer() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.writer == nil || b.blind {
		return
	}
	pods, mirrors := b.api.Pods()
	b.writer.Offer(status.Snapshot{Pods: pods, Mirrors: mirrors, Synced: true})
}

// see lets the watch tell, or not.
func (b *bed) see(does bool) {
	b.mu.Lock()
	b.blind = !does
	b.mu.Unlock()
	b.offer()
}

// asked demands what the API server was asked since the last time.
func (b *bed) asked(when string, want ...string) {
	b.t.Helper()
	synctest.Wait()
	if got := b.api.Asked(); fmt.Sprint(got) != fmt.Sprint(want) {
		b.t.Errorf("%s the API server was asked\n%q, want\n%q", when, got, want)
	}
}

// podSet tells what the test says, as worker.Set does.
type podSet struct {
	mu    sync.Mutex
	pods  map[types.UID]told
	tells map[int]func(*corev1.Pod, bool) error
	next  int
}

type told struct {
	pod  *corev1.Pod
	gone bool
}

func (s *podSet) Watch(ctx context.Context, tell func(p *corev1.Pod, gone bool) error) error {
	s.mu.Lock()
	for _, c := range s.pods {
		_ = tell(c.pod, c.gone)
	}
	if s.tells == nil {
		s.tells = map[int]func(*corev1.Pod, bool) error{}
	}
	s.next++
	me := s.next
	s.tells[me] = tell
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	delete(s.tells, me)
	s.mu.Unlock()
	return ctx.Err()
}

func (s *podSet) tell(p *corev1.Pod, gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods[p.UID] = told{p, gone}
	for _, tell := range s.tells {
		_ = tell(p, gone)
	}
}

// unlist is what becomes of a pod that is gone when its source does not list it.
func (s *podSet) unlist(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pods, uid)
}

// bound is a pod as the scheduler leaves it.
func bound(name, uid string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(uid), Generation: 1},
		Spec:       corev1.PodSpec{NodeName: "node", Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodPending, QOSClass: corev1.PodQOSBestEffort,
			Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(time.Unix(5000, 0))}},
		},
	}
}

// with is the pod with the status that the pod set would give it.
func with(p *corev1.Pod, phase corev1.PodPhase, ready bool, restarts int32) *corev1.Pod {
	q := *p
	condition := func(t corev1.PodConditionType, holds bool) corev1.PodCondition {
		c := corev1.PodCondition{Type: t, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Now(), ObservedGeneration: 1}
		if holds {
			c.Status = corev1.ConditionTrue
		} else {
			c.Reason = "ContainersNotReady"
		}
		return c
	}
	now := metav1.Now()
	q.Status = corev1.PodStatus{
		Phase: phase, QOSClass: corev1.PodQOSBestEffort, StartTime: &now, ObservedGeneration: 1, HostIP: "192.0.2.1", HostIPs: []corev1.HostIP{{IP: "192.0.2.1"}},
		Conditions: []corev1.PodCondition{
			condition(corev1.PodReadyToStartContainers, phase == corev1.PodRunning), condition(corev1.PodInitialized, true),
			condition(corev1.PodReady, ready), condition(corev1.ContainersReady, ready), condition(corev1.PodScheduled, true),
		},
	}
	c := corev1.ContainerStatus{Name: "c", Image: "i", RestartCount: restarts, Ready: ready, Started: new(ready)}
	switch phase {
	case corev1.PodPending:
		c.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
	case corev1.PodRunning:
		c.ContainerID = fmt.Sprintf("containerd://%s-%d", p.UID, restarts)
		c.State.Running = &corev1.ContainerStateRunning{StartedAt: now}
		q.Status.PodIP, q.Status.PodIPs = "10.244.0.7", []corev1.PodIP{{IP: "10.244.0.7"}, {IP: "fd00::7"}}
	default:
		c.ContainerID = fmt.Sprintf("containerd://%s-%d", p.UID, restarts)
		c.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: 0, Reason: "Completed", StartedAt: now, FinishedAt: now, ContainerID: c.ContainerID}
	}
	q.Status.ContainerStatuses = []corev1.ContainerStatus{c}
	return &q
}

func readyOf(p *corev1.Pod) corev1.ConditionStatus {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status
		}
	}
	return ""
}
