package main

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestMeasured: who asks for a run without the race detector gets one.
func TestMeasured(t *testing.T) {
	var ask []string
	root := os.DirFS(filepath.Join("..", ".."))
	err := fs.WalkDir(root, "internal", func(file string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(file, "_test.go") {
			return err
		}
		text, err := fs.ReadFile(root, file)
		if pkg := "nodeagent/" + path.Dir(file); strings.Contains(string(text), "need.NoRace") && !slices.Contains(ask, pkg) {
			ask = append(ask, pkg)
		}
		return err
	})
	if err != nil || len(ask) == 0 || !slices.Equal(ask, measured) {
		t.Errorf("these ask for a run without the race detector: %v, %v; those that get one: %v", ask, err, measured)
	}
}
