package cgroups

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/test/need"
)

func TestFactsV1(t *testing.T) {
	need.Have(t, need.CgroupV1)
	tree := realTree(t)
	parent, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSBurstable, limits(250, 10000, 64<<20, 100))
	if err != nil {
		t.Fatal(err)
	}
	// The loop takes some times its share of a period: time is counted when it may go on,
	// and one that waits for input by then never was held up.
	cmd := script(t, tree, parent+"/c", `x=$(head -c 1500000 /dev/zero | tr '\0' x)
i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; echo ready; read never`)
	f, err := tree.Facts(t.Context(), parent)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Missed) > 0 {
		t.Errorf("missed: %v", f.Missed)
	}
	l := f.Limits
	if l.CPUShares == nil || *l.CPUShares != 256 || l.CPUQuota == nil || *l.CPUQuota != 10000 ||
		l.CPUPeriod == nil || *l.CPUPeriod != 100000 || l.MemoryMax == nil || *l.MemoryMax != 64<<20 ||
		l.Pids == nil || *l.Pids != 100 || l.CPUWeight != nil || l.MemoryHigh != nil {
		t.Errorf("limits: %s", asJSON(t, l))
	}
	if l.CPUs != readString(t, filepath.Join(tree.dir("cpuset", parent), "cpuset.effective_cpus")) || l.CPUs == "" {
		t.Errorf("cpus: %q", l.CPUs)
	}
	u := f.Usage
	if u.CPUNanos == 0 || u.CPUThrottled == 0 || u.CPUThrottledTime == 0 || u.MemoryAnon < 1500000 ||
		u.MemoryWorkingSet < u.MemoryAnon || u.MemoryPeak < u.MemoryBytes || u.Pids != 1 {
		t.Errorf("usage: %s", asJSON(t, u))
	}
	if len(f.Processes) != 1 {
		t.Fatalf("processes: %s", asJSON(t, f.Processes))
	}
	p := f.Processes[0]
	if p.PID != cmd.Process.Pid || p.Comm != "sh" || p.Below != "/c" || p.Start == 0 {
		t.Errorf("process: %+v", p)
	}
	if f.Paths["memory"] != parent || f.Paths["unified"] != parent && tree.unified != "" {
		t.Errorf("paths: %v", f.Paths)
	}
	if tree.unified != "" {
		if _, err := os.Stat(tree.unified + "/cpu.pressure"); err == nil && len(f.Pressure) == 0 {
			t.Error("the hybrid's unified hierarchy has pressure files, which were not read")
		}
	}

	figures, err := tree.Figures(t.Context(), parent)
	if g := figures.Usage; err != nil || figures.Processes != nil || g.CPUNanos < u.CPUNanos || g.CPUUserNanos+g.CPUSystemNanos == 0 ||
		g.MemoryAnon < 1500000 || g.PageFaults == 0 || g.Pids != 1 || *figures.Limits.MemoryMax != 64<<20 {
		t.Errorf("figures: %s, %v", asJSON(t, figures), err)
	}
	whole, err := tree.Figures(t.Context(), "/")
	if w := whole.Usage; err != nil || w.CPUNanos <= figures.Usage.CPUNanos || w.MemoryWorkingSet <= figures.Usage.MemoryWorkingSet || w.MemoryWorkingSet >= w.MemoryBytes {
		t.Errorf("figures of the machine: %s, %v", asJSON(t, whole), err)
	}

	byPID, err := tree.PIDFacts(t.Context(), cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if byPID.Paths["memory"] != parent+"/c" || len(byPID.Processes) != 1 || byPID.Processes[0].Below != "" {
		t.Errorf("facts by pid: %s", asJSON(t, byPID))
	}
	if c, err := tree.ContainerFacts(t.Context(), parent, "c"); err != nil || c.Limits.MemoryMax != nil {
		t.Errorf("facts of the container, which has no limit: %s, %v", asJSON(t, c), err)
	}
	if _, err := tree.Facts(t.Context(), parent+"x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("facts of what is not there: %v", err)
	}
}

// An OOM kill is counted where the limit is.
func TestFactsCountOOMKills(t *testing.T) {
	need.Have(t, need.CgroupV1)
	tree := realTree(t)
	parent, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSBurstable, limits(0, 0, 8<<20, 0))
	if err != nil {
		t.Fatal(err)
	}
	cmd := script(t, tree, parent+"/c", eater)
	dirs := tree.existing(parent)
	for end := time.Now().Add(need.Slow(10 * time.Second)); time.Now().Before(end); {
		pids, err := processes(dirs)
		if err != nil {
			t.Fatal(err)
		}
		if len(pids) == 0 {
			break
		}
		if err := pause(t.Context(), time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	f, err := tree.Facts(t.Context(), parent)
	if err != nil || f.OOM.Kills == 0 || f.OOM.Limit == 0 {
		t.Errorf("process %d: OOM is %+v, %v", cmd.Process.Pid, f.OOM, err)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
