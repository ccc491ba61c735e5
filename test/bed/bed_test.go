package bed_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
	"nodeagent/test/image"
	"nodeagent/test/measure"
)

// TestBed runs a container in a bed, takes containerd away and back, and proves
// that nothing of the bed is left when it is closed.
func TestBed(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for name, o := range map[string]bed.Options{"usual": {Stock: true}, "private": {Stock: true, Private: true}} {
		t.Run(name, func(t *testing.T) { roundTrip(t, ctx, o) })
	}
}

func roundTrip(t *testing.T, ctx context.Context, o bed.Options) {
	b := bed.Containerd(t, o)
	if err := b.Import(ctx); err != nil {
		t.Fatal(err)
	}
	ctr := []string{"ctr", "-a", b.Address(), "-n", bed.Namespace}
	out, err := b.Run(ctx, append(ctr, "run", "--rm", "--cgroup", b.CgroupRoot()+"/one", image.Example, "one", "/podtool", "show")...)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, `"pid":1,`) {
		t.Errorf("a container shows %s, want pid 1", out)
	}
	if _, err := b.Run(ctx, append(ctr, "run", "-d", "--cgroup", b.CgroupRoot()+"/two", image.Shell, "two", "/bin/sleep", "1000")...); err != nil {
		t.Fatal(err)
	}
	if err := b.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if out, err = b.Run(ctx, append(ctr, "task", "ls")...); err != nil || !strings.Contains(out, "RUNNING") {
		t.Errorf("after a restart of containerd its tasks are %q, %v", out, err)
	}
	if out, err = b.Run(ctx, "ip", "route"); err != nil || strings.Count(out, "default") != 1 || !strings.Contains(out, "default dev node0") {
		t.Errorf("the bed's routes are %q, %v; want the default one to node0 only", out, err)
	}
	countsApart(t, b)
	dir := b.Dir()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is still there", dir)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(mounts), dir) {
		t.Errorf("something is still mounted below %s", dir)
	}
	if states, _ := filepath.Glob("/run/containerd/runc/*/two"); len(states) > 0 {
		t.Errorf("runc's state is left: %v", states)
	}
	left, _ := filepath.Glob("/sys/fs/cgroup/*" + b.CgroupRoot())
	if len(left) > 0 {
		t.Errorf("cgroups are left: %v", left)
	}
}

// countsApart: what a process's children use is counted where it was moved to.
func countsApart(t *testing.T, b *bed.Bed) {
	cmd := exec.Command("/bin/sh", "-c", "read line; /bin/sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; true")
	begin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(cmd); err != nil {
		t.Fatal(err)
	}
	stat, err := b.Apart(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	before, err := measure.GroupTime(stat)
	if err != nil {
		t.Fatal(err)
	}
	begin.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	after, err := measure.GroupTime(stat)
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if got := after - before; err != nil || got < used/2 || got > used {
		t.Errorf("counted %v, %v; the process says that it and its child used %v", got, err, used)
	}
}

// BenchmarkBed is what a test pays for a private node.
func BenchmarkBed(b *testing.B) {
	need.Have(b, need.Root)
	for b.Loop() {
		x, err := bed.Start(b.Context(), bed.Options{Stock: true})
		if err != nil {
			b.Fatal(err)
		}
		if err := x.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
