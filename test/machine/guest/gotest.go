package guest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeagent/test/bed"
)

// Slowness is what a limit on time is multiplied by in a guest: software
// emulation, measured at 8 to 12 times for our programs. Tests read it from the
// environment through need.Slow.
const Slowness = 10

// GoTest compiles the tests of a package for the guest, runs them inside and
// reports each as a subtest of t with its result, what it said and how long it
// took. args are those of go test: -run, -skip, -short, -timeout (default 30m),
// -tags; others go to the test binary as they are.
func (g *Guest) GoTest(t *testing.T, pkg string, args ...string) {
	t.Helper()
	tags, timeout, argv := split(args)
	ctx, cancel := context.WithTimeout(t.Context(), timeout+5*time.Minute)
	defer cancel()
	if err := g.Programs(ctx); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	name := strings.ReplaceAll(strings.TrimPrefix(pkg, "nodeagent/"), "/", "-")
	bin := "/opt/nodeagent/tests/" + name + ".test"
	if err := g.putTest(ctx, pkg, tags, bin); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s compiled and brought in after %.1f s", pkg, time.Since(begin).Seconds())
	run := Command{
		Argv: slices.Concat([]string{bin, "-test.v=test2json", "-test.timeout=" + timeout.String()}, argv),
		Dir:  filepath.Join(treeDir, strings.TrimPrefix(pkg, "nodeagent/")),
		Env:  append(bedEnv(), fmt.Sprintf("NODEAGENT_SLOW=%d", Slowness)),
	}
	cpu, _ := g.CPU()
	begin = time.Now()
	r := &report{t: t, pkg: pkg, guest: g.name(), tests: map[string]*tested{}}
	code, err := g.stream(ctx, run, r)
	after, _ := g.CPU()
	t.Logf("%s took %.0f s, and %.0f s of the host's CPU", pkg, time.Since(begin).Seconds(), (after - cpu).Seconds())
	r.cost((after - cpu).Seconds())
	switch {
	case err != nil:
		t.Errorf("run the tests of %s in the guest: %v\n%s", pkg, err, tail(r.said.String(), 60))
	case code != 0 && !t.Failed():
		t.Errorf("the tests of %s ended with %d\n%s", pkg, code, tail(r.said.String(), 60))
	case r.ran == 0 && code == 0:
		t.Errorf("no test of %s ran", pkg)
	}
	if left := r.running(); len(left) > 0 {
		t.Errorf("%s did not end\n%s", strings.Join(left, ", "), tail(r.said.String(), 100))
	}
}

// name tells guests apart in results.
func (g *Guest) name() string {
	return strings.Join(append([]string{g.opts.Arch}, g.opts.Cmdline...), " ")
}

// split takes out of args what is for the compiler and what this package needs
// to know, and gives the rest the names that a test binary knows.
func split(args []string) (tags string, timeout time.Duration, rest []string) {
	timeout = 30 * time.Minute
	for i := 0; i < len(args); i++ {
		name, value, has := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if !slices.Contains([]string{"tags", "timeout", "run", "skip", "short", "count", "parallel", "failfast"}, name) {
			rest = append(rest, args[i])
			continue
		}
		if !has && name != "short" && name != "failfast" && i+1 < len(args) {
			i++
			value, has = args[i], true
		}
		switch {
		case name == "tags":
			tags = value
		case name == "timeout":
			if d, err := time.ParseDuration(value); err == nil {
				timeout = d
			}
		case has:
			rest = append(rest, "-test."+name+"="+value)
		default:
			rest = append(rest, "-test."+name)
		}
	}
	return tags, timeout, rest
}

// putTest brings in a package's tests, compiled on the host: once for all guests
// of a run.
func (g *Guest) putTest(ctx context.Context, pkg, tags, guestPath string) error {
	fill := func(dir string) error { return compileTest(ctx, g.opts.Arch, pkg, tags, filepath.Join(dir, "test")) }
	dir, made, err := shared("test-"+g.opts.Arch+"-"+filepath.Base(guestPath)+"-"+tags, fill)
	if err == nil && !made {
		if dir, err = os.MkdirTemp("", "guest-test-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		err = fill(dir)
	}
	if err != nil {
		return err
	}
	return g.Put(ctx, filepath.Join(dir, "test"), guestPath)
}

func compileTest(ctx context.Context, arch, pkg, tags, bin string) error {
	root, err := bed.ModuleRoot(ctx)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-trimpath", "-ldflags", "-s -w", "-tags", tags, "-o", bin, pkg)
	cmd.Dir, cmd.Env = root, goEnv(arch)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile the tests of %s: %w\n%s", pkg, err, text)
	}
	return nil
}

// stream runs the test binary, and has test2json tell its lines apart.
func (g *Guest) stream(ctx context.Context, run Command, r *report) (int, error) {
	conv := exec.CommandContext(ctx, "go", "tool", "test2json", "-t") // -t: with times
	in, err := conv.StdinPipe()
	if err != nil {
		return 0, err
	}
	out, err := conv.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := conv.Start(); err != nil {
		return 0, err
	}
	run.Output = io.MultiWriter(in, &r.said)
	var code int
	ended := make(chan error, 1)
	go func() { // ends with the command, whose context has a deadline
		var err error
		code, err = g.Exec(ctx, run)
		ended <- errors.Join(err, in.Close())
	}()
	s := bufio.NewScanner(out)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		var e event
		if json.Unmarshal(s.Bytes(), &e) == nil {
			r.add(e)
		}
	}
	err = <-ended
	return code, errors.Join(err, s.Err(), conv.Wait())
}

// event is one line of test2json.
type event struct {
	Action, Test, Output string
	Elapsed              float64
}

// tested is what is known of one test or subtest.
type tested struct {
	name    string // of the subtest alone
	action  string // pass, fail, skip; empty while it runs
	elapsed float64
	output  bytes.Buffer
	sub     []*tested
}

// report makes subtests of events.
type report struct {
	t     *testing.T
	pkg   string
	guest string
	tests map[string]*tested
	said  bytes.Buffer // everything, for when it did not end as it should
	ran   int
}

func (r *report) add(e event) {
	if e.Test == "" {
		return
	}
	n := r.test(e.Test)
	switch e.Action {
	case "output":
		n.output.WriteString(e.Output)
	case "pass", "fail", "skip":
		n.action, n.elapsed = e.Action, e.Elapsed
		r.record(e.Test, n)
		if !strings.Contains(e.Test, "/") {
			r.ran++
			n.show(r.t)
			delete(r.tests, e.Test)
		}
	}
}

// test finds a test by its full name, or notes it below its parent.
func (r *report) test(full string) *tested {
	if n := r.tests[full]; n != nil {
		return n
	}
	n := &tested{name: full}
	r.tests[full] = n
	if i := strings.LastIndexByte(full, '/'); i > 0 {
		n.name = full[i+1:]
		p := r.test(full[:i])
		p.sub = append(p.sub, n)
	}
	return n
}

// running are the tests that have no result: the binary ended before them.
func (r *report) running() (names []string) {
	for name, n := range r.tests {
		if n.action == "" && !strings.Contains(name, "/") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// show reports the test as a subtest of t.
func (n *tested) show(t *testing.T) {
	t.Run(n.name, func(t *testing.T) {
		for _, s := range n.sub {
			s.show(t)
		}
		switch n.action {
		case "skip":
			t.Skip(Reason(n.output.String()))
		case "pass":
			t.Logf("%.2f s in the guest", n.elapsed)
		default:
			t.Errorf("%.2f s in the guest\n%s", n.elapsed, n.output.String())
		}
	})
}

// Reason is what a test said when it skipped: "file.go:12: need:root: why".
func Reason(output string) string {
	for line := range strings.Lines(output) {
		if _, why, ok := strings.Cut(strings.TrimSpace(line), ".go:"); ok {
			_, why, _ = strings.Cut(why, ": ")
			return why
		}
	}
	return "no reason given"
}

// Result is one line of the file that NODEAGENT_MACHINE_RESULTS names: what one
// test came to in one guest.
type Result struct {
	Guest, Package, Test, Action, Why string
	Host                              string // the name that go test gives it on the host
	Seconds                           float64
}

// cost adds a line for the whole package.
func (r *report) cost(cpu float64) {
	record(r.t, Result{Guest: r.guest, Package: r.pkg, Action: "cost", Seconds: cpu})
}

// Note says something that the whole run shall print: a figure that somebody wants to see
// though the test has passed.
func Note(t testing.TB, format string, args ...any) {
	t.Helper()
	text := fmt.Sprintf(format, args...)
	t.Log(text)
	record(t, Result{Test: t.Name(), Action: "note", Why: text})
}

// record adds the result to the file that the whole run is judged by.
func (r *report) record(full string, n *tested) {
	res := Result{Guest: r.guest, Package: r.pkg, Test: full, Host: r.t.Name() + "/" + full, Action: n.action, Seconds: n.elapsed}
	if n.action == "skip" {
		res.Why = Reason(n.output.String())
	}
	record(r.t, res)
}

func record(t testing.TB, res Result) {
	path := os.Getenv("NODEAGENT_MACHINE_RESULTS")
	if path == "" {
		return
	}
	b, err := json.Marshal(res)
	if err == nil {
		err = appendLine(path, b)
	}
	if err != nil {
		t.Errorf("record a result: %v", err)
	}
}

func appendLine(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	return errors.Join(err, f.Close())
}
