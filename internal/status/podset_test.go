package status_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
	"nodeagent/internal/status"
	"nodeagent/internal/status/statustest"
	"nodeagent/internal/worker"
	"nodeagent/internal/worker/workertest"
)

// TestWithPodSet: the real pod set over a world in which calls fail, and an API server
// that fails as well. Pods are made and deleted there, daemons are killed. In the end the
// API server has what runs, and of what was deleted nothing is left anywhere.
func TestWithPodSet(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { newNode(t, seed).suffer() }) })
		if t.Failed() {
			return
		}
	}
}

// node is the daemon's pods and status over a world and an API server.
type node struct {
	t      *testing.T
	r      *rand.Rand
	world  *workertest.World
	api    *statustest.Server
	client status.Client
	close  func()

	mu     sync.Mutex
	set    *worker.Set
	writer *status.Writer
	end    func()
}

func newNode(t *testing.T, seed uint64) *node {
	r := rand.New(rand.NewPCG(seed, 9))
	n := &node{t: t, r: r, api: statustest.New()}
	n.world = workertest.New(seed, workertest.Faults{Percent: r.IntN(15), SlowPercent: r.IntN(15)}, func(name, _ string, attempt uint32) workertest.Behaviour {
		switch {
		case strings.HasPrefix(name, "job"):
			return workertest.Behaviour{Runs: 3 * time.Second, Code: int32((seed + uint64(name[len(name)-1])) % 2)}
		case strings.HasPrefix(name, "flaky") && attempt < 3:
			return workertest.Behaviour{Runs: time.Second, Code: 1}
		}
		return workertest.Behaviour{}
	})
	rest, stop, err := n.api.Serve()
	if err != nil {
		t.Fatal(err)
	}
	n.client, n.close = status.NewClient(rest), stop
	n.api.OnChange(n.offer)
	return n
}

// start fits a daemon together as wire.go does.
func (n *node) start() {
	d, quiet := n.world.Daemon(), slog.New(slog.DiscardHandler)
	set, err := worker.New(worker.Config{
		Runtime: d, Sandboxes: d, Containers: d, Stops: d, Hooks: d, Images: d, Cgroups: d,
		Network: d, Dirs: d, Files: d, Volumes: d.Volumes(), Links: d, Objects: d, Probes: d, Stray: d.Stray,
		Sources: []string{"api"}, Logger: quiet,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	writer, err := status.New(status.Config{Pods: set, API: n.client, Node: func() status.Node { return status.Node{Name: "node", UID: "u"} }, Logger: quiet})
	if err != nil {
		n.t.Fatal(err)
	}
	d.Attach(set.Wake)
	ctx, cancel := context.WithCancel(n.t.Context())
	var parts sync.WaitGroup
	parts.Go(func() { _ = set.Run(ctx) })
	parts.Go(func() { _ = writer.Run(ctx) })
	n.mu.Lock()
	n.set, n.writer = set, writer
	n.mu.Unlock()
	n.end = func() {
		n.mu.Lock()
		n.set, n.writer = nil, nil
		n.mu.Unlock()
		cancel()
		parts.Wait()
		d.Kill()
	}
	n.offer()
}

func (n *node) offer() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.set == nil {
		return
	}
	pods, _ := n.api.Pods()
	snap := worker.Snapshot{Source: "api", Synced: true, Trusted: true}
	for _, p := range pods {
		d := pod.Desired{Wish: pod.WishRun, Pod: p}
		if p.DeletionTimestamp != nil {
			d.Wish, d.Grace = pod.WishAbsent, p.DeletionGracePeriodSeconds
		}
		snap.Pods = append(snap.Pods, d)
	}
	n.writer.Offer(status.Snapshot{Pods: pods, Synced: true})
	n.set.Offer(snap)
}

func (n *node) suffer() {
	defer n.close()
	chance := rand.New(rand.NewPCG(n.r.Uint64(), 1)) // used with the server's lock held
	n.api.Faults(func(statustest.Request) (f statustest.Fault) {
		switch chance.IntN(12) {
		case 0:
			f.Refuse = true
		case 1:
			f.Lose = true
		case 2:
			f.Status = 500
		case 3:
			f.Delay = time.Duration(chance.IntN(15)) * time.Second
		}
		return f
	})
	n.start()
	for i := range 12 + n.r.IntN(12) {
		name := []string{"web", "job", "flaky"}[n.r.IntN(3)] + fmt.Sprint(n.r.IntN(2))
		switch p := n.api.Pod("default", name); {
		case n.r.IntN(5) == 0:
			n.end()
			time.Sleep(time.Duration(n.r.IntN(20)) * time.Second)
			n.start()
		case p == nil:
			p := bound(name, fmt.Sprint(name, "-", i))
			p.Spec.Containers[0].Name, p.Spec.RestartPolicy = "app", corev1.RestartPolicyOnFailure
			if strings.HasPrefix(name, "job") {
				p.Spec.RestartPolicy = corev1.RestartPolicyNever
			}
			n.api.Add(p)
		default:
			n.api.Delete("default", name, n.r.IntN(5) == 0)
		}
		time.Sleep(time.Duration(n.r.IntN(15000)) * time.Millisecond)
	}
	n.world.Calm()
	n.api.Faults(func(statustest.Request) statustest.Fault { return statustest.Fault{} })
	time.Sleep(30 * time.Minute)
	n.settled()
	pods, _ := n.api.Pods()
	n.end()
	for _, p := range pods {
		n.api.Delete(p.Namespace, p.Name, false) // while no daemon runs
	}
	n.start()
	time.Sleep(30 * time.Minute)
	if pods, _ := n.api.Pods(); len(pods) > 0 || len(n.world.Left()) > 0 {
		n.t.Errorf("in the end the API server has %d pods, and the node %v", len(pods), n.world.Left())
	}
	n.end()
	for _, what := range slices.Concat(n.api.Illegal(), n.world.Broken()) {
		n.t.Error(what)
	}
}

// settled holds what the API server has against what the pod set tells.
func (n *node) settled() {
	told := map[string]*corev1.Pod{}
	for _, p := range n.set.Pods() {
		told[string(p.UID)] = p
	}
	pods, _ := n.api.Pods()
	for _, p := range pods {
		t := told[string(p.UID)]
		if p.DeletionTimestamp != nil || t == nil || t.Status.Phase != p.Status.Phase || readyOf(t) != readyOf(p) {
			n.t.Errorf("pod %s (%s, deleted %v) is %s, ready %s at the API server; the node tells %+v", p.Name, p.UID, p.DeletionTimestamp, p.Status.Phase, readyOf(p), t)
		}
		if want := corev1.ConditionTrue; strings.HasPrefix(p.Name, "web") && readyOf(p) != want {
			n.t.Errorf("pod %s is not ready: %+v", p.Name, p.Status)
		}
	}
	if len(told) != len(pods) {
		n.t.Errorf("the node tells of %d pods, the API server has %d", len(told), len(pods))
	}
}
