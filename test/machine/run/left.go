package main

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
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
	tests, err := wanting(root, need.Lacks)
	if err != nil {
		return err
	}
	pkgs := slices.Sorted(maps.Keys(tests))
	var unseen []string
	for _, pkg := range pkgs {
		args := []string{"-count=1", pkg}
		if names := tests[pkg]; len(names) > 0 {
			args = append(args, "-run", "^("+strings.Join(names, "|")+")$")
		}
		// A test that fails here is make test-host's to report: skips are what counts. But a
		// package that cannot be built, or panics, tells of none.
		err := goTest(ctx, nil, r.ledger.onHost, args...)
		if names := r.ledger.unseen(pkg, tests[pkg]); len(names) > 0 {
			fmt.Println("not told by this host:", strings.Join(names, ", "), err)
			unseen = append(unseen, names...)
		}
	}
	nowhere := r.ledger.nowhere(func(fact string) bool { return need.Lacks(need.Fact(fact)) != "" })
	for _, n := range nowhere {
		fmt.Println("ran nowhere:", n)
	}
	if len(unseen) > 0 {
		return fmt.Errorf("%d tests of this host came to no result: whether they ran anywhere is not known", len(unseen))
	}
	if len(nowhere) > 0 {
		return fmt.Errorf("%d tests skip on this host and passed in no guest", len(nowhere))
	}
	fmt.Printf("== every test that this host cannot run passed in a guest (looked at %s)\n", strings.Join(pkgs, " "))
	return nil
}

// wanting are the tests that ask for a fact that lacks says this host has not, by
// package; none named are all of the package, where it is not a test itself that
// asks but what several call. The tests of guests themselves are not among them:
// they are the ones that run now.
func wanting(root string, lacks func(need.Fact) string) (map[string][]string, error) {
	found := map[string]map[string]bool{}
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
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if !asks(decl, lacks) {
				continue
			}
			pkg := "nodeagent/" + filepath.Dir(rel)
			if found[pkg] == nil {
				found[pkg] = map[string]bool{}
			}
			found[pkg][testName(decl)] = true
		}
		return nil
	})
	tests := map[string][]string{}
	for pkg, names := range found {
		tests[pkg] = nil
		if !names[""] {
			tests[pkg] = slices.Sorted(maps.Keys(names))
		}
	}
	return tests, err
}

// testName is the test's that is declared, or "".
func testName(decl ast.Decl) string {
	f, ok := decl.(*ast.FuncDecl)
	if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Test") || f.Name.Name == "TestMain" {
		return ""
	}
	return f.Name.Name
}

// asks tells whether need.Have is called there with a fact that is lacking.
func asks(decl ast.Decl, lacks func(need.Fact) string) (does bool) {
	ast.Inspect(decl, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || ofNeed(call.Fun) != "Have" {
			return true
		}
		for _, arg := range call.Args {
			if fact, known := need.ByName(ofNeed(arg)); known && lacks(fact) != "" {
				does = true
			}
		}
		return true
	})
	return does
}

// ofNeed is X of an expression need.X, or "".
func ofNeed(e ast.Expr) string {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if pkg, ok := s.X.(*ast.Ident); !ok || pkg.Name != "need" {
		return ""
	}
	return s.Sel.Name
}
