package cri

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestSweepMarks: the marks of a container that is there stay, the one that is being
// written among them; those of containers that are gone do not, finished or not.
func TestSweepMarks(t *testing.T) {
	n := &Native{cfg: Config{RunDir: t.TempDir()}, state: newState()}
	for _, dir := range []string{filepath.Dir(n.startedPath("x")), filepath.Dir(n.stopPath("x"))} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var want []string
	for _, id := range []string{"here", "gone"} {
		for _, path := range []string{n.startedPath(id), n.stopPath(id)} {
			writing := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
			for _, path := range []string{path, writing} {
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if id == "here" {
					want = append(want, path)
				}
			}
		}
	}
	n.sweepMarks(map[string]bool{"here": true})
	left, err := filepath.Glob(filepath.Join(n.cfg.RunDir, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(left)
	slices.Sort(want)
	if !slices.Equal(left, want) {
		t.Errorf("left %q, want %q", left, want)
	}
}
