package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
)

// left fails if a test skips on this host for want of something, and no guest of
// this run has passed it.
func (r *run) left(ctx context.Context) error {
	root, err := bed.ModuleRoot(ctx)
	if err != nil {
		return err
	}
	pkgs, err := wanting(root, need.Lacks)
	if err != nil {
		return err
	}
	if len(pkgs) > 0 {
		// A failure here is make test-host's to report; skips are what counts.
		_ = goTest(ctx, nil, r.ledger.onHost, append([]string{"-count=1"}, pkgs...)...)
	}
	nowhere := r.ledger.nowhere(func(fact string) bool { return need.Lacks(need.Fact(fact)) != "" })
	for _, n := range nowhere {
		fmt.Println("ran nowhere:", n)
	}
	if len(nowhere) > 0 {
		return fmt.Errorf("%d tests skip on this host and passed in no guest", len(nowhere))
	}
	fmt.Printf("== every test that this host cannot run passed in a guest (looked at %s)\n", strings.Join(pkgs, " "))
	return nil
}

// asks finds what a test skips without, and names each thing in it.
var (
	asks  = regexp.MustCompile(`\bneed\.Have\(([^()]*)\)`)
	names = regexp.MustCompile(`\bneed\.([A-Z][A-Za-z0-9]*)\b`)
)

// wanting are the packages whose tests ask for a fact that lacks says this host
// has not. The tests of guests themselves are not among them: they are the ones
// that run now.
func wanting(root string, lacks func(need.Fact) string) ([]string, error) {
	found := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() && (d.Name() == ".git" || rel == "bin" || rel == "test/machine" || rel == "internal/test/need") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, call := range asks.FindAll(text, -1) {
			for _, m := range names.FindAllSubmatch(call[len("need.Have("):], -1) {
				if fact, known := need.ByName(string(m[1])); known && lacks(fact) != "" {
					found["nodeagent/"+filepath.Dir(rel)] = true
				}
			}
		}
		return nil
	})
	pkgs := make([]string, 0, len(found))
	for p := range found {
		pkgs = append(pkgs, p)
	}
	slices.Sort(pkgs)
	return pkgs, err
}
