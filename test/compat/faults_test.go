package compat

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestFaultsAreProved: each line of the tables of docs/reliability.md and of
// docs/coverage.md names tests, and each test that is named exists.
func TestFaultsAreProved(t *testing.T) {
	there := testNames(t)
	for _, page := range []string{"../../docs/reliability.md", "../../docs/coverage.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(string(text)) {
			n++
			cells := strings.Split(strings.TrimSpace(line), "|")
			if len(cells) < 4 || strings.HasPrefix(line, "|---") || strings.Contains(line, "| proved by |") || strings.Contains(line, "| tests |") {
				continue
			}
			names := named.FindAllString(cells[len(cells)-2], -1)
			if len(names) == 0 && !unproved.MatchString(line) {
				t.Errorf("%s:%d names no test", page, n)
			}
			for _, name := range names {
				if !there[name] {
					t.Errorf("%s:%d: there is no %s", page, n, name)
				}
			}
		}
	}
}

var (
	named = regexp.MustCompile(`\b(Test|Fuzz|Benchmark)[A-Z]\w+`)
	// unproved are lines that say so themselves.
	unproved = regexp.MustCompile(`no test of|every test of`)
)

// testNames are all tests, fuzz targets and benchmarks of this repository.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && named.MatchString(f.Name.Name) {
				all[f.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
