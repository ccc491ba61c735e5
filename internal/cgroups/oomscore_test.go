package cgroups

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/test/need"
)

// The probe finds exactly what the kernel allows, and leaves the own score as
// it was.
func TestProbeOOMScoreAdj(t *testing.T) {
	for _, c := range []struct{ own, allowed int }{
		{0, -1000}, {0, 0}, {0, -1}, {0, -999}, {500, 0}, {500, -3}, {-998, -1000}, {-998, -998}, {1000, 1000}, {-1000, -1000}, {1000, 999},
	} {
		file := filepath.Join(t.TempDir(), "oom_score_adj")
		if err := os.WriteFile(file, []byte(strconv.Itoa(c.own)), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := probeOOMScoreAdj(file, func(file, value string) error {
			if v, err := strconv.Atoi(value); err != nil || v < c.allowed {
				return unix.EACCES
			}
			return os.WriteFile(file, []byte(value), 0o644)
		})
		if err != nil || got != c.allowed {
			t.Errorf("own %d, allowed %d: %d, %v", c.own, c.allowed, got, err)
		}
		if own, err := readInt(file); err != nil || own != c.own {
			t.Errorf("own %d, allowed %d: it is %d afterwards, %v", c.own, c.allowed, own, err)
		}
	}
}

func TestClampOOMScoreAdj(t *testing.T) {
	s := &OOMScores{min: -5}
	for want, got := range map[int]int{-997: -5, -5: -5, -4: -4, 0: 0, 999: 999, 1000: 1000, 1001: 1000} {
		if v, clamped := s.ClampOOMScoreAdj(want); v != got || clamped != (want != got) {
			t.Errorf("want %d: %d, clamped %v", want, v, clamped)
		}
	}
}

func TestRealOOMScores(t *testing.T) {
	before, err := readInt("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	scores, err := NewOOMScores("")
	if err != nil {
		t.Fatal(err)
	}
	if after, _ := readInt("/proc/self/oom_score_adj"); after != before {
		t.Errorf("the own score went from %d to %d", before, after)
	}
	if scores.Min() > before {
		t.Errorf("the lowest allowed score is %d, the own one %d", scores.Min(), before)
	}
	if scores.Min() > OOMScoreAdjMin {
		if err := writeErr("/proc/self/oom_score_adj", scores.Min()-1); err == nil {
			t.Errorf("%d is not the lowest", scores.Min())
		}
	}
}

func TestProbeWithCapability(t *testing.T) {
	need.Have(t, need.Root, need.SysResource)
	if got, err := ProbeOOMScoreAdj(); err != nil || got != OOMScoreAdjMin {
		t.Errorf("%d, %v", got, err)
	}
}

func writeErr(file string, v int) error { return linux{}.Write(file, strconv.Itoa(v)) }

// Every process of a container gets the score, its children's too.
func TestSetOOMScoreAdj(t *testing.T) {
	trees(t, func(t *testing.T, tree *Tree) {
		scores, err := NewOOMScores("")
		if err != nil {
			t.Fatal(err)
		}
		parent, err := tree.EnsurePod(t.Context(), someUID, corev1.PodQOSGuaranteed, limits(0, 0, 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		script(t, tree, parent+"/c", `sleep 1000 & sleep 1000 & echo ready; wait`)
		script(t, tree, parent+"/c/below", `echo ready; sleep 1000`)
		other := script(t, tree, parent+"/other", `echo ready; sleep 1000`)
		// Between vfork and exec a process has no score: it borrows its parent's memory.
		awaitComm(t, tree, parent, "c", "sleep", 3)
		if n, err := tree.SetOOMScoreAdj(t.Context(), scores, parent, "c", 900); err != nil || n < 4 {
			t.Fatalf("%d changed, %v", n, err)
		}
		f, err := tree.ContainerFacts(t.Context(), parent, "c")
		if err != nil || len(f.Processes) < 4 {
			t.Fatalf("%d processes, %v", len(f.Processes), err)
		}
		for _, p := range f.Processes {
			if p.OOMScoreAdj != 900 || p.OOMScore < 900 {
				t.Errorf("process %d (%s) has %d, score %d", p.PID, p.Comm, p.OOMScoreAdj, p.OOMScore)
			}
		}
		if n, err := tree.SetOOMScoreAdj(t.Context(), scores, parent, "c", 900); err != nil || n != 0 {
			t.Errorf("again: %d changed, %v", n, err)
		}
		if adj, _ := readInt("/proc/" + strconv.Itoa(other.Process.Pid) + "/oom_score_adj"); adj == 900 {
			t.Error("another container's process was changed")
		}
		if err := tree.RemovePod(within(t, 10*time.Second), someUID); err != nil {
			t.Error(err)
		}
		if n, err := tree.SetOOMScoreAdj(t.Context(), scores, parent, "c", 900); err != nil || n != 0 {
			t.Errorf("a container that is gone: %d, %v", n, err)
		}
	})
}

// awaitComm waits until n processes of the container run the program.
func awaitComm(t *testing.T, tree *Tree, parent, container, program string, n int) {
	t.Helper()
	ctx := within(t, 10*time.Second)
	for {
		f, err := tree.ContainerFacts(ctx, parent, container)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, p := range f.Processes {
			if p.Comm == program {
				found++
			}
		}
		if found >= n {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d processes run %s, want %d", found, program, n)
		case <-time.After(time.Millisecond):
		}
	}
}
