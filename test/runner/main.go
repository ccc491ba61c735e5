// Command runner is "make test": it runs every step that proves the project on
// this machine, prints what "go test" prints, and says at the end which tests
// were skipped and why, and what tests measured. It exits 1 when a step failed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"nodeagent/test/bed"
	"nodeagent/test/cluster"
)

func main() {
	race := flag.Bool("race", true, "run ./internal/... under the race detector")
	only := flag.String("only", "", "run the `step` only: build, vet, unit, failpoints, oracle, cluster")
	count := flag.Bool("fresh", false, "do not use cached test results")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r := runner{race: *race, fresh: *count}
	failed := r.run(ctx, *only)
	r.summary(failed)
	if len(failed) > 0 {
		os.Exit(1)
	}
}

type runner struct {
	race, fresh bool
	env         []string
	notes       []string // what this machine did not get
	tests       results
}

func (r *runner) run(ctx context.Context, only string) (failed []string) {
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"build", r.build}, {"vet", r.vet}, {"unit", r.unit}, {"failpoints", r.failpoints}, {"oracle", r.oracle},
		{"cluster", r.cluster},
	}
	for _, s := range steps {
		if only != "" && s.name != only {
			continue
		}
		start := time.Now()
		fmt.Printf("== %s\n", s.name)
		err := s.run(ctx)
		if err != nil {
			fmt.Printf("FAIL step %s: %v\n", s.name, err)
			failed = append(failed, s.name)
		}
		fmt.Printf("== %s: %s in %.0f s\n", s.name, map[bool]string{true: "ok", false: "FAILED"}[err == nil], time.Since(start).Seconds())
		if ctx.Err() != nil {
			return append(failed, "interrupted")
		}
		if err != nil && s.name == "build" {
			return failed
		}
	}
	return failed
}

// build makes the programs that every bed runs, once, so that tests find them
// instead of building side by side.
func (r *runner) build(ctx context.Context) error {
	if os.Geteuid() != 0 {
		r.note("not root: every test that makes namespaces, cgroups, mounts or containers is skipped")
		return nil
	}
	if _, err := bed.Tools(ctx, os.Stdout); err != nil {
		return err
	}
	if _, err := cluster.Programs(ctx, os.Stdout); err != nil {
		return err
	}
	dir := filepath.Join(bed.CacheDir(), "test-bin")
	if err := bed.BuildAll(ctx, dir); err != nil {
		return err
	}
	r.env = append(r.env, "NODEAGENT_BED_BIN="+dir)
	return nil
}

func (r *runner) vet(ctx context.Context) error {
	return r.command(ctx, ".", "go", "vet", "./...")
}

// soak is the package of the long run with random faults: "make soak" runs it.
const soak = "nodeagent/test/soak"

// controlPlane is the package whose tests have a control plane of Kubernetes each:
// a choice of them is a step of its own, "make test-cluster" runs all.
const controlPlane = "nodeagent/test/cluster"

// simulation is the package whose tests are thousands of runs of one seed each.
const simulation = "nodeagent/internal/worker"

// measured are the packages with tests of memory, which the race detector would
// falsify: each asks for need.NoRace, and its name begins with TestMemory.
var measured = []string{"nodeagent/internal/logs", "nodeagent/internal/net/proxy", "nodeagent/internal/object"}

// unit runs every test of the module: ./internal/... under the race detector,
// the rest as it is. The simulation runs both ways, the detector being ten times
// slower: a tenth of the seeds with it, all of them without.
func (r *runner) unit(ctx context.Context) error {
	args := []string{"-timeout", "20m"}
	if r.fresh {
		args = append(args, "-count=1")
	}
	inside, outside, err := r.packages(ctx)
	if err != nil {
		return err
	}
	if !r.race || !r.canRace(ctx) {
		return r.goTest(ctx, ".", slices.Concat(args, []string{"-p=1", simulation}, inside, outside)...)
	}
	return errors.Join(
		r.goTest(ctx, ".", slices.Concat(args, []string{"-race"}, inside)...),
		r.goTest(ctx, ".", slices.Concat(args, []string{"-race", simulation, "-seeds=200"})...),
		r.goTest(ctx, ".", slices.Concat(args, []string{"-p=1", "-run=^TestMemory"}, measured)...),
		// One at a time: some of these hold times and rates against limits.
		r.goTest(ctx, ".", slices.Concat(args, []string{"-p=1", simulation}, outside)...),
	)
}

func (r *runner) canRace(ctx context.Context) bool {
	if err := exec.CommandContext(ctx, "gcc", "--version").Run(); err != nil {
		r.note("no gcc: the race detector did not run (make deps)")
		return false
	}
	return true
}

// packages are those to run under the race detector, and the others.
func (r *runner) packages(ctx context.Context) (inside, outside []string, err error) {
	out, err := exec.CommandContext(ctx, "go", "list", "./...").Output()
	if err != nil {
		return nil, nil, fmt.Errorf("list packages: %w", err)
	}
	for p := range strings.FieldsSeq(string(out)) {
		switch {
		case p == simulation, p == soak, p == controlPlane:
		case strings.HasPrefix(p, "nodeagent/internal/"):
			inside = append(inside, p)
		default:
			outside = append(outside, p)
		}
	}
	return inside, outside, nil
}

// failpoints runs the tests that make each named place of a room fail and die,
// which needs the build tag.
func (r *runner) failpoints(ctx context.Context) error {
	return r.goTest(ctx, ".", "-timeout", "20m", "-tags", "failpoints", "-p=1", "-run", "Failpoint|Anywhere",
		"./internal/failpoint", "./internal/cri", "./internal/net/podnet")
}

// oracle compares our defaults and validation with those of the API server.
func (r *runner) oracle(ctx context.Context) error {
	if _, err := os.Stat("test/oracle/go.mod"); err != nil {
		return err
	}
	return r.goTest(ctx, "test/oracle", "-timeout", "20m", "./...")
}

// cluster has a control plane come up, and the daemon be a node of one. What else a
// node meets, and those of Kubernetes' programs that it is compared with, which take
// minutes more to build, are for "make test-cluster".
func (r *runner) cluster(ctx context.Context) error {
	// The daemon is no part of the test binary, by which results are remembered.
	return r.goTest(ctx, ".", "-timeout", "20m", "-count=1", "-run", "^(TestVersions|TestControlPlane|TestNode)$", controlPlane)
}

func (r *runner) command(ctx context.Context, dir string, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), r.env...)
	return cmd.Run()
}

func (r *runner) note(s string) { r.notes = append(r.notes, s) }

func (r *runner) summary(failed []string) {
	fmt.Printf("\n%d tests passed, %d failed, %d skipped\n", r.tests.passed, len(r.tests.failed), len(r.tests.skipped))
	for _, n := range r.notes {
		fmt.Println("note:", n)
	}
	for _, f := range r.tests.figures {
		fmt.Println("figure:", f)
	}
	for _, why := range r.tests.reasons() {
		fmt.Println(why)
	}
	for _, f := range r.tests.failed {
		fmt.Println("failed:", f.test)
		for _, why := range f.why {
			fmt.Println("    " + why)
		}
	}
	if len(failed) > 0 {
		fmt.Println("FAIL", strings.Join(failed, ", "))
		return
	}
	fmt.Println("PASS")
}
