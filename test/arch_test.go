// Package arch_test owns the rules of the house that a compiler does not check:
// which room may see which, and what is not written anywhere. It reads "go list"
// and the syntax trees, and changes nothing.
package arch_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ring says where a package stands; arrows point to a lower ring.
type ring int

const (
	unknown  ring = iota
	pure          // 0: decisions as functions of values
	edge          // 1: one thing of the outside world each
	small         // leaves that any ring 1 room may use
	loop          // 2: goroutines that decide by ring 0 and act by small interfaces
	leaf          // diagnostics: reads everything, is read by nobody
	root          // commands, the only place that fits parts together
	testing_      // tests, beds and benches: free, but nobody imports them
)

// rooms maps the longest matching prefix to a ring.
var rooms = map[string]ring{
	"internal/pod":              pure,
	"internal/hostcheck":        pure, // the judgement; the looks are a leaf
	"internal/hostcheck/gather": leaf,
	"internal/net":              pure, // the root package only: the rooms below it are edges
	"internal/net/podnet":       edge,
	"internal/net/nftables":     edge,
	"internal/net/conntrack":    edge,
	"internal/net/iptables":     edge,
	"internal/net/ipvs":         edge,
	"internal/net/news":         small,
	"internal/net/proxy":        loop,
	"internal/cri":              edge,
	"internal/cgroups":          edge,
	"internal/source":           edge,
	"internal/status":           edge,
	"internal/object":           edge,
	"internal/cert":             edge,
	"internal/volume":           edge,
	"internal/logind":           edge,
	"internal/shutdown":         loop,
	"internal/poddir":           edge,
	"internal/hook":             edge,
	"internal/apiwatch":         small,
	"internal/config":           small,
	"internal/failpoint":        small,
	"internal/durable":          small,
	"internal/shimapi":          small,
	"internal/journal":          edge,
	"internal/logs":             small,
	"internal/mkdir":            small,
	"internal/openat2":          small,
	"internal/pulse":            small,
	"internal/rmdir":            small,
	"internal/worker":           loop,
	"internal/probe":            loop,
	"internal/node":             loop,
	"internal/server":           loop,
	"internal/stats":            loop,
	"internal/diag":             leaf,
	"internal/cli":              leaf,
	"cmd":                       root,
	"test":                      testing_,
	"internal/test":             testing_,
	"examples":                  testing_,
	"internal/worker/sim":       testing_,
}

type pkg struct {
	Dir, ImportPath, Name, Doc string
	GoFiles, CgoFiles          []string
	IgnoredGoFiles             []string
	Imports, Deps              []string
	Standard                   bool
	Module                     *struct{ Path string }
}

func (p pkg) rel() string { return strings.TrimPrefix(p.ImportPath, "nodeagent/") }

func (p pkg) ring() ring { return ringOf(p.rel()) }

// ringOf also knows that every package whose name ends in "test" holds fakes.
func ringOf(rel string) ring {
	if strings.HasSuffix(path.Base(rel), "test") && strings.HasPrefix(rel, "internal/") {
		return testing_
	}
	for p := rel; p != "."; p = path.Dir(p) {
		if r, ok := rooms[p]; ok {
			return r
		}
	}
	return unknown
}

// room is the prefix of rooms to which a package belongs.
func room(rel string) string {
	for p := rel; p != "."; p = path.Dir(p) {
		if _, ok := rooms[p]; ok {
			return p
		}
	}
	return rel
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e", "-json=Dir,ImportPath,Name,Doc,GoFiles,CgoFiles,IgnoredGoFiles,Imports,Deps,Standard,Module"}, args...)...)
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles)+len(p.CgoFiles) > 0 {
			all = append(all, p)
		}
	}
}

// TestRings holds every import against the rings.
func TestRings(t *testing.T) {
	for _, p := range list(t, "./...") {
		if p.ring() == unknown {
			t.Errorf("%s stands in no ring: give it one in this file, and docs/design a page", p.rel())
		}
		for _, imp := range p.Imports {
			if why := banned(p.rel(), imp); why != "" {
				t.Errorf("%s imports %s: %s", p.rel(), imp, why)
			}
		}
	}
}

// banned tells why from must not import imp, or "".
func banned(from, imp string) string {
	r := ringOf(from)
	if r == testing_ {
		return ""
	}
	if why := bannedOutside(from, r, imp); why != "" {
		return why
	}
	to, ours := strings.CutPrefix(imp, "nodeagent/")
	if !ours {
		return ""
	}
	switch tr := ringOf(to); {
	case tr == testing_:
		return "product code must not carry test code"
	case tr == root:
		return "commands fit parts together; a part that knows them cannot be used elsewhere"
	case room(from) == room(to):
		return ""
	case tr == leaf && r != root:
		return "diagnostics must never be on the daemon's way"
	case r == pure && tr != pure:
		return "a decision that sees the outside world cannot be tested as a function of values"
	case r == small && tr != pure && tr != small:
		return "a leaf that any room may import must not pull a room in"
	case r == edge && tr == edge:
		return "ring 1 rooms do not know each other: what one needs of another is given by wire.go as a value or a small interface"
	case (r == edge || r == small) && tr == loop:
		return "arrows point to a lower ring"
	case r == loop && tr == edge:
		return "loops declare the small interface that they need, so that the simulation can stand in for the world"
	case r == loop && tr == loop:
		return "loops meet in wire.go only"
	}
	return ""
}

// bannedOutside holds imports of the standard library and of other modules.
func bannedOutside(from string, r ring, imp string) string {
	first, _, _ := strings.Cut(imp, "/")
	std := !strings.Contains(first, ".") && first != "nodeagent"
	switch {
	case r == pure && std && slices.Contains([]string{"os", "os/exec", "os/signal", "net/http", "syscall", "sync", "sync/atomic", "log", "log/slog", "context", "math/rand", "math/rand/v2", "io/ioutil"}, imp):
		return "ring 0 has no clock, I/O, goroutine, lock or dice"
	case r == pure && !std && first != "nodeagent" && !hasAny(imp, "k8s.io/api/", "k8s.io/apimachinery/", "k8s.io/component-helpers/"):
		return "ring 0 sees the standard library and k8s.io/{api,apimachinery,component-helpers} only"
	case hasAny(imp, "github.com/containerd/containerd/v2/") && !hasAny(from+"/", "internal/cri/", "cmd/nodeagent-shim/"):
		return "containerd is known in internal/cri and the shim only, so that its next version changes one room"
	case hasAny(imp, "k8s.io/client-go/kubernetes", "k8s.io/client-go/informers", "k8s.io/client-go/listers"):
		return "the clientset brings the types of all API groups into memory; make a REST client of the group that is needed"
	case hasAny(imp, "k8s.io/client-go/") && !talksToAPI(from):
		return "only who talks to the API server knows its client: it costs memory, and requests"
	case hasAny(imp, "k8s.io/kubernetes/"):
		return "the tree of kubernetes is a specification to read; the oracle module alone may run it"
	case hasAny(imp, "k8s.io/") && hasAny(from, "cmd/nodeagent-shim", "cmd/containerd-shim-nodeagent-v1"):
		return "one shim a pod: what it imports is paid in memory for every pod"
	}
	return ""
}

// talksToAPI tells whether a package may know client-go.
func talksToAPI(from string) bool {
	return hasAny(from+"/", "internal/source/", "internal/object/", "internal/cert/", "internal/status/",
		"internal/node/", "internal/server/", "internal/net/proxy/", "internal/apiwatch/", "cmd/nodeagent/")
}

func hasAny(s string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}

// TestShimIsSmall holds the shim's whole import graph.
func TestShimIsSmall(t *testing.T) {
	for _, p := range list(t, "-tags", "grpcnotrace", "./cmd/nodeagent-shim") {
		for _, d := range p.Deps {
			// With templates the linker keeps every method: 14.5 MB and not 10.3.
			if hasAny(d, "k8s.io/", "sigs.k8s.io/", "net/http/pprof", "github.com/spf13/", "text/template", "html/template") {
				t.Errorf("the shim depends on %s: one shim a pod, it must stay small", d)
			}
		}
	}
}

// TestStarterIsSmall: what begins a shim runs once for each container's start.
func TestStarterIsSmall(t *testing.T) {
	for _, p := range list(t, "./cmd/containerd-shim-nodeagent-v1") {
		for _, d := range p.Deps {
			first, _, _ := strings.Cut(d, "/")
			if strings.Contains(first, ".") && !hasAny(d, "golang.org/x/sys/unix", "google.golang.org/protobuf/encoding/protowire", "google.golang.org/protobuf/internal/") {
				t.Errorf("what begins a shim depends on %s: it is run once for each container, and a library's beginning is most of what it costs", d)
			}
		}
	}
}

// TestDaemonIsSmall: also what the daemon's libraries bring is paid by every node,
// whether it has an API server or not.
func TestDaemonIsSmall(t *testing.T) {
	for _, p := range list(t, "./cmd/nodeagent") {
		for _, d := range p.Deps {
			if hasAny(d, "k8s.io/client-go/kubernetes", "k8s.io/client-go/informers", "k8s.io/client-go/listers", "k8s.io/apiserver/", "github.com/emicklei/", "github.com/google/gnostic") {
				t.Errorf("the daemon depends on %s: it brings the types of all API groups, or a server that is not used", d)
			}
		}
	}
}

// TestNoCgo: the products are static programs.
func TestNoCgo(t *testing.T) {
	for _, p := range list(t, "./cmd/...", "./internal/...") {
		if len(p.CgoFiles) > 0 {
			t.Errorf("%s uses cgo in %v: the products are static and cross-compile", p.rel(), p.CgoFiles)
		}
	}
}

// TestNames: a package is the noun it owns, and says so.
func TestNames(t *testing.T) {
	empty := []string{"util", "utils", "common", "helper", "helpers", "manager", "managers", "base", "misc", "lib", "shared", "types"}
	for _, p := range list(t, "./...") {
		if slices.Contains(empty, path.Base(p.rel())) || slices.Contains(empty, p.Name) {
			t.Errorf("%s: a package is named by what it owns; %q owns nothing", p.rel(), p.Name)
		}
		if p.Doc == "" {
			t.Errorf("%s has no package comment: say what it owns, what it never does, and who may call it from which goroutine", p.rel())
		}
	}
}

// file is a parsed file of a product package.
type file struct {
	rel  string
	ring ring
	path string
	fset *token.FileSet
	ast  *ast.File
}

func files(t *testing.T, patterns ...string) []file {
	t.Helper()
	var all []file
	for _, p := range list(t, patterns...) {
		for _, name := range slices.Concat(p.GoFiles, p.IgnoredGoFiles) {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Errorf("parse %s: %v", name, err)
				continue
			}
			all = append(all, file{p.rel(), p.ring(), p.rel() + "/" + name, fset, f})
		}
	}
	return all
}

func (f file) line(n ast.Node) int { return f.fset.Position(n.Pos()).Line }

// TestWhatIsNotWritten finds what the laws rule out.
func TestWhatIsNotWritten(t *testing.T) {
	for _, f := range files(t, "./cmd/...", "./internal/...") {
		if f.ring == testing_ || f.rel == "internal/failpoint" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Name.Name == "init" && n.Recv == nil {
					t.Errorf("%s:%d has an init function: constructors are New without side effects", f.path, f.line(n))
				}
			case *ast.GoStmt:
				if f.ring == pure {
					t.Errorf("%s:%d starts a goroutine in ring 0", f.path, f.line(n))
				}
			case *ast.InterfaceType:
				if m := methods(n); m > 4 {
					t.Errorf("%s:%d declares an interface of %d methods: the consumer needs at most four", f.path, f.line(n), m)
				}
			case *ast.SelectorExpr:
				if why := bannedCall(f, n); why != "" {
					t.Errorf("%s:%d uses %s.%s: %s", f.path, f.line(n), n.X, n.Sel.Name, why)
				}
			}
			return true
		})
	}
}

func methods(i *ast.InterfaceType) int {
	n := 0
	for _, m := range i.Methods.List {
		if _, ok := m.Type.(*ast.FuncType); ok {
			n += len(m.Names)
		}
	}
	return n
}

func bannedCall(f file, s *ast.SelectorExpr) string {
	x, ok := s.X.(*ast.Ident)
	if !ok {
		return ""
	}
	switch call := x.Name + "." + s.Sel.Name; {
	case call == "time.Sleep":
		return "wait for what tells you, with a deadline, or use a timer in a select"
	case f.ring == pure && slices.Contains([]string{"time.Now", "time.Since", "time.Until", "time.After", "time.NewTimer", "time.NewTicker", "time.Tick", "time.AfterFunc"}, call):
		return "ring 0 gets the time as a value"
	case f.ring == pure && x.Name == "net" && !hasAny(s.Sel.Name, "Parse", "IP", "CIDR", "SplitHostPort", "JoinHostPort"):
		return "ring 0 only parses addresses"
	case call == "os.Exit" && f.ring != root && f.ring != leaf:
		return "only main exits"
	}
	return ""
}

// TestFailpoints holds the names of fail-points against the places that use
// them: each name stands at exactly one place, or a visited name proves nothing.
func TestFailpoints(t *testing.T) {
	names, listed := map[string]int{}, 0
	for _, f := range files(t, "./internal/failpoint") {
		if !strings.HasSuffix(f.path, "/names.go") {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				for _, id := range n.Names {
					names[id.Name] = 0
				}
			case *ast.CompositeLit:
				listed = len(n.Elts)
			}
			return true
		})
	}
	if listed != len(names) {
		t.Errorf("failpoint.All lists %d of %d names", listed, len(names))
	}
	for _, f := range files(t, "./cmd/...", "./internal/...") {
		if f.ring == testing_ {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "failpoint" {
					if _, known := names[s.Sel.Name]; known {
						names[s.Sel.Name]++
					}
				}
			}
			return true
		})
	}
	for name, n := range names {
		if n != 1 {
			t.Errorf("fail-point %s stands at %d places, want 1", name, n)
		}
	}
	if len(names) < 40 {
		t.Errorf("there are %d fail-points, want at least 40: before and after each external call and durable write of a pod's start and stop", len(names))
	}
}

// TestSize keeps the tail short: it is the long function that hurts.
func TestSize(t *testing.T) {
	const maxFile, maxFunc = 400, 80 // the wish is 60; a whole switch may be longer
	for _, f := range files(t, "./cmd/...", "./internal/...") {
		if n := f.fset.File(f.ast.Pos()).LineCount(); n > maxFile {
			t.Errorf("%s has %d lines, want at most %d", f.path, n, maxFile)
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := f.fset.Position(fn.End()).Line - f.line(fn); n > maxFunc {
				t.Errorf("%s:%d %s has %d lines, want at most %d", f.path, f.line(fn), fn.Name.Name, n, maxFunc)
			}
		}
	}
}

// TestDesignPages: each room built has a page of its own.
func TestDesignPages(t *testing.T) {
	pages, err := filepath.Glob("../docs/design/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("docs/design: %v, %v", pages, err)
	}
	for _, p := range pages {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(b), "\n"); n < 10 || n > 150 {
			t.Errorf("%s has %d lines: a design page is one page", p, n)
		}
	}
}
