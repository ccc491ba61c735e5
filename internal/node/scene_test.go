package node_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"nodeagent/internal/node"
	"nodeagent/internal/node/machine"
	"nodeagent/internal/node/nodetest"
)

// scene is a node at an API server in memory, in virtual time.
type scene struct {
	t      *testing.T
	server *nodetest.Server
	node   *node.Node
	cfg    node.Config
	stop   func()

	mu       sync.Mutex
	verdicts node.Verdicts
	facts    node.Facts
	ahead    time.Duration // of the wall clock
	events   []node.Event
	cidrs    [][]netip.Prefix
	changed  int
}

func (s *scene) Conditions() node.Verdicts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.verdicts
}

// healthy is a node that lacks nothing.
func healthy() node.Verdicts {
	return node.Verdicts{Judged: true, Memory: new(false), Disk: new(false), PIDs: new(false)}
}

func facts() node.Facts {
	m := machine.Machine{CPUs: 4, Memory: 8 << 30, BootID: "boot-1", MachineID: "machine-1", SystemUUID: "system-1",
		Kernel: "6.18.0", OSImage: "Debian", HugePages: map[int64]int64{2 << 20: 4}}
	capacity := node.Capacity(m, 100<<30, 110, 0)
	allocatable := capacity.DeepCopy()
	allocatable[corev1.ResourceMemory] = resource.MustParse("7Gi")
	return node.Facts{
		Machine: m, Capacity: capacity, Allocatable: allocatable, RuntimeVersion: "2.4.2",
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: "192.0.2.10"}, {Type: corev1.NodeInternalIP, Address: "2001:db8::10"},
			{Type: corev1.NodeHostName, Address: "node"},
		},
		Images: []node.Image{{Names: []string{"a@sha256:1", "a:1"}, Size: 10}},
	}
}

// play starts a node in a bubble and lets the test go on when it is at rest.
func play(t *testing.T, change func(*node.Config, *scene), then func(s *scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{t: t, server: nodetest.New(), verdicts: healthy(), facts: facts()}
		defer s.server.Close()
		client, err := node.Dial(s.server.Config(), nil)
		if err != nil {
			t.Fatal(err)
		}
		cfg := node.Config{
			Identity: node.Identity{Name: "node", Version: node.Version("v1.36.3", "test"), Port: 10250, ControllerAttach: true,
				Labels: map[string]string{"team": "a"}, Taints: []corev1.Taint{{Key: "new", Effect: corev1.TaintEffectNoSchedule}}},
			Register: true, Nodes: client.Nodes(), Leases: client.Leases(), Reconnect: client.Reconnect,
			Conditions: s,
			Facts:      func() node.Facts { s.mu.Lock(); defer s.mu.Unlock(); return s.facts },
			PodCIDRs:   func(all []netip.Prefix) { s.mu.Lock(); defer s.mu.Unlock(); s.cidrs = append(s.cidrs, all) },
			Changed:    func(*corev1.Node) { s.mu.Lock(); defer s.mu.Unlock(); s.changed++ },
			Event:      func(e node.Event) { s.mu.Lock(); defer s.mu.Unlock(); s.events = append(s.events, e) },
			Wall:       func() time.Time { s.mu.Lock(); defer s.mu.Unlock(); return time.Now().Add(s.ahead) },
			Logger:     slog.New(slog.NewTextHandler(t.Output(), nil)),
		}
		if change != nil {
			change(&cfg, s)
		}
		s.cfg = cfg
		s.run()
		defer func() { s.stop() }()
		synctest.Wait()
		then(s)
	})
}

// run runs a node until stop.
func (s *scene) run() {
	s.t.Helper()
	n, err := node.New(s.cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.node = n
	ctx, cancel := context.WithCancel(s.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	s.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("run: %v", err)
		}
	}
}

// wait lets so much time pass.
func (s *scene) wait(d time.Duration) {
	t := time.NewTimer(d)
	<-t.C
	synctest.Wait()
}

// judge changes the verdicts and says so.
func (s *scene) judge(f func(*node.Verdicts)) {
	s.mu.Lock()
	f(&s.verdicts)
	s.mu.Unlock()
	s.node.Wake()
	synctest.Wait()
}

func (s *scene) condition(kind corev1.NodeConditionType) corev1.NodeCondition {
	s.t.Helper()
	n := s.server.Node()
	if n == nil {
		s.t.Fatal("there is no Node")
	}
	i := slices.IndexFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == kind })
	if i < 0 {
		s.t.Fatalf("the Node has no condition %s: %v", kind, n.Status.Conditions)
	}
	return n.Status.Conditions[i]
}

// reasons are those of the events so far.
func (s *scene) reasons() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, e := range s.events {
		all = append(all, e.Reason)
	}
	return all
}

var errRuntime = errors.New("container runtime is down")
