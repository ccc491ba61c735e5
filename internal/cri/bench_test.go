package cri_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"nodeagent/test/bed"
)

// BenchmarkPod shows what each call of a pod's life costs, the median in
// milliseconds, beside the floor, with a pod network that costs nothing.
func BenchmarkPod(b *testing.B) {
	for _, o := range []bed.Options{{}, {Stock: true}} {
		name := "own shim"
		if o.Stock {
			name = "stock shim"
		}
		b.Run(name, func(b *testing.B) {
			n := newNode(b, o)
			f := newFloor(b, n)
			s := steps{}
			for i := 0; b.Loop(); i++ {
				s.floor(b, f, fmt.Sprintf("floor%d", i))
				s.pod(b, n, fmt.Sprintf("bench%d", i))
			}
			s.report(b)
		})
	}
}

// steps holds how long each step took, run by run.
type steps map[string][]time.Duration

func (s steps) took(name string, began time.Time) time.Time {
	now := time.Now()
	s[name] = append(s[name], now.Sub(began))
	return now
}

func (s steps) report(b *testing.B) {
	for name, all := range s {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "ms-"+name)
	}
}

func (s steps) floor(b *testing.B, f *floor, id string) {
	t := time.Now()
	check(b, f.up(b.Context(), id))
	s.took("0-floor-up", t)
	obeys()
	t = time.Now()
	check(b, f.down(b.Context()))
	s.took("0-floor-down", t)
}

func (s steps) pod(b *testing.B, n *node, uid string) {
	ctx := b.Context()
	config := n.sandboxConfig(uid)
	began := time.Now()
	sb, err := n.RunPodSandbox(ctx, config, "")
	check(b, err)
	t := s.took("1-sandbox", began)
	id, err := n.CreateContainer(ctx, sb, containerConfig("main", 0, "sleep", "forever"), config)
	check(b, err)
	t = s.took("2-create", t)
	check(b, n.StartContainer(ctx, id))
	s.took("3-start", t)
	s.took("9-up", began)
	obeys()
	began = time.Now()
	check(b, n.StopContainer(ctx, id, 10*time.Second))
	t = s.took("4-stop", began)
	// As the plan does: what does not depend on each other side by side.
	stopped := make(chan error, 1)
	go func() { stopped <- n.StopPodSandbox(ctx, sb) }()
	check(b, n.RemoveContainer(ctx, id))
	check(b, <-stopped)
	t = s.took("5-remove", t)
	check(b, n.RemovePodSandbox(ctx, sb))
	s.took("6-sandbox-remove", t)
	s.took("9-down", began)
	if left := n.Observe(types.UID(uid)); !left.Empty() {
		b.Fatalf("left: %+v", left)
	}
}

// obeys waits until the process surely takes SIGTERM. That it catches the
// signal does not tell: a Go program does so before it listens, and as process 1
// of a PID namespace it is deaf until then.
func obeys() { <-time.After(100 * time.Millisecond) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
