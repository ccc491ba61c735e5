package main_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// TestFloor proves that the floor measures, and that it leaves nothing.
func TestFloor(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	b := bed.Containerd(t, bed.Options{Stock: true, Private: true})
	if err := b.Import(ctx); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "floor")
	build := exec.CommandContext(ctx, "go", "build", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	before, err := b.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	out, err := b.Run(ctx, bin, "-address", b.Address(), "-image", image.Example, "-cgroup", b.CgroupRoot(), "-n", "5", "-many", "8",
		"/podtool", "sleep", "forever")
	if err != nil {
		t.Fatal(err)
	}
	t.Log(out)
	var r map[string]any
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"createMedian", "deleteMedian", "createMany", "deleteMany", "shimAnon"} {
		if v, _ := r[k].(float64); v <= 0 {
			t.Errorf("%s is %v", k, r[k])
		}
	}
	if err := b.WaitSame(ctx, before, "cgroup"); err != nil { // runc leaves the empty parent
		t.Error(err)
	}
}
