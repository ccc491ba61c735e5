package cri_test

import (
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"nodeagent/test/bed"
)

// BenchmarkPod shows what each call of a pod's life costs, in milliseconds, with
// a pod network that costs nothing.
func BenchmarkPod(b *testing.B) {
	n := newNode(b, bed.Options{})
	steps := map[string]time.Duration{}
	step := func(name string, began time.Time) time.Time {
		now := time.Now()
		steps[name] += now.Sub(began)
		return now
	}
	ctx := b.Context()
	i := 0
	f := newFloor(b, n)
	for b.Loop() {
		t := time.Now()
		check(b, f.up(ctx, fmt.Sprintf("floor%d", i)))
		step("0-floor-up", t)
		<-time.After(100 * time.Millisecond)
		t = time.Now()
		check(b, f.down(ctx))
		step("0-floor-down", t)
		uid := fmt.Sprintf("bench%d", i)
		i++
		config := n.sandboxConfig(uid)
		t = time.Now()
		sb, err := n.RunPodSandbox(ctx, config)
		check(b, err)
		t = step("1-sandbox", t)
		id, err := n.CreateContainer(ctx, sb, containerConfig("main", 0, "sleep", "forever"), config)
		check(b, err)
		t = step("2-create", t)
		check(b, n.StartContainer(ctx, id))
		step("3-start", t)
		// Let the start settle, as in life.
		<-time.After(100 * time.Millisecond)
		t = time.Now()
		check(b, n.StopContainer(ctx, id, 10*time.Second))
		t = step("4-stop", t)
		check(b, n.StopPodSandbox(ctx, sb))
		t = step("5-sandbox-stop", t)
		check(b, n.RemoveContainer(ctx, id))
		t = step("6-remove", t)
		check(b, n.RemovePodSandbox(ctx, sb))
		step("7-sandbox-remove", t)
		if s := n.Observe(types.UID(uid)); !s.Empty() {
			b.Fatalf("left: %+v", s)
		}
	}
	for name, d := range steps {
		b.ReportMetric(float64(d.Microseconds())/1000/float64(b.N), "ms-"+name)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
