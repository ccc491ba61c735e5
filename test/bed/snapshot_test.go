package bed_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// TestSnapshot proves that the oracle sees what a container leaves behind and
// what happens to other people's things.
func TestSnapshot(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	b := bed.Containerd(t, bed.Options{Stock: true, Private: true})
	if err := b.Import(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.Plant(ctx); err != nil {
		t.Fatal(err)
	}
	before, err := b.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ctr := []string{"ctr", "-a", b.Address(), "-n", bed.Namespace}
	if _, err := b.Run(ctx, append(ctr, "run", "-d", "--cgroup", b.CgroupRoot()+"/x", image.Example, "x", "/podtool", "sleep", "forever")...); err != nil {
		t.Fatal(err)
	}
	if running, err := b.Running(ctx); err != nil || len(running) != 1 || running["x"] == "" {
		t.Errorf("running containers are %v, %v; want x with a pid", running, err)
	}
	during, err := b.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"+ container k8s.io/x", "+ task k8s.io/x", "+ snapshot k8s.io/x", "+ cgroup ", "+ mount ", "+ process podtool", "+ shim-socket "} {
		if !slices.ContainsFunc(before.Diff(during), func(l string) bool { return strings.HasPrefix(l, want) }) {
			t.Errorf("the oracle does not see %q in\n%s", want, strings.Join(before.Diff(during), "\n"))
		}
	}
	if _, err := b.Run(ctx, append(ctr, "task", "kill", "-s", "KILL", "x")...); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Run(ctx, append(ctr, "task", "delete", "-f", "x")...); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Run(ctx, append(ctr, "container", "delete", "x")...); err != nil {
		t.Fatal(err)
	}
	short, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	if err := b.WaitSame(short, before); err != nil {
		t.Error(err)
	}
	if _, err := b.Run(ctx, "nft", "flush", "ruleset"); err != nil {
		t.Fatal(err)
	}
	now, err := b.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if d := before.Diff(now); len(d) == 0 || !strings.HasPrefix(d[0], "- rule table inet foreign") {
		t.Errorf("after a flush of all rules the oracle says %q", d)
	}
}

// TestReaper proves that a bed goes away when its owner is killed.
func TestReaper(t *testing.T) {
	need.Have(t, need.Root)
	if os.Getenv("BED_TEST_DIE") != "" {
		b := bed.Containerd(t, bed.Options{Stock: true})
		if err := b.Import(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Run(t.Context(), "ctr", "-a", b.Address(), "-n", bed.Namespace, "run", "-d", "--cgroup", b.CgroupRoot()+"/z",
			image.Example, "z", "/podtool", "deaf"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(os.Getenv("BED_TEST_DIE"), []byte(b.ID()), 0o600); err != nil {
			t.Fatal(err)
		}
		die()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	file := filepath.Join(t.TempDir(), "id")
	child := exec.CommandContext(ctx, "/proc/self/exe", "-test.run=^TestReaper$")
	child.Env = append(os.Environ(), "BED_TEST_DIE="+file)
	out, err := child.CombinedOutput()
	id, readErr := os.ReadFile(file)
	if readErr != nil {
		t.Fatalf("the child made no bed: %v\n%s", err, out)
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		left, _ := filepath.Glob("/sys/fs/cgroup/*/nodeagent-bed-" + string(id))
		if _, err := os.Lstat("/tmp/nab/" + string(id)); err != nil && len(left) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("bed %s is still there after its owner's death: %v", id, left)
		case <-time.After(wait):
		}
	}
}

func die() {
	p, _ := os.FindProcess(os.Getpid())
	_ = p.Kill()
	select {}
}
