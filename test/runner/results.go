package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// event is one line of "go test -json" (cmd/test2json).
type event struct {
	Action, Package, Test, Output, ImportPath string
}

// results are what all steps' tests came to.
type results struct {
	passed  int
	failed  []failure
	skipped []skip
	figures []string // what tests measured, and hold against nothing
}

// failure is a test that failed, with what it complained of.
type failure struct {
	test string
	why  []string
}

type skip struct{ test, why string }

// goTest runs "go test -json" and prints what "go test" would: a line for each
// package, and everything that a failed test said.
func (r *runner) goTest(ctx context.Context, dir string, args ...string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	cmd.Env = append(os.Environ(), r.env...)
	// Ctrl-C reaches the tests by their terminal; a bed needs time to go.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 30 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	said := map[string]*strings.Builder{}
	s := bufio.NewScanner(out)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		var e event
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			fmt.Println(s.Text())
			continue
		}
		r.tests.add(e, said)
	}
	return cmd.Wait()
}

func (r *results) add(e event, said map[string]*strings.Builder) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "build-output":
		fmt.Print(e.Output)
	case "output":
		if e.Test == "" {
			if e.Output != "PASS\n" && e.Output != "FAIL\n" {
				fmt.Print(e.Output)
			}
			return
		}
		if said[key] == nil {
			said[key] = &strings.Builder{}
		}
		said[key].WriteString(e.Output)
	case "pass":
		if e.Test != "" {
			r.passed++
			r.figures = append(r.figures, figures(e.Test, said[key])...)
		}
		delete(said, key)
	case "skip":
		if e.Test != "" {
			r.skipped = append(r.skipped, skip{key, reason(said[key])})
		}
		delete(said, key)
	case "fail":
		if e.Test == "" {
			r.stuck(e.Package, said)
			return
		}
		f := failure{test: key}
		if b := said[key]; b != nil {
			fmt.Print(b.String())
			f.why = complaints(b.String())
		}
		r.failed = append(r.failed, f)
		delete(said, key)
	}
}

// complaints are the first lines that a test itself wrote: "    file.go:12: why".
// What its programs wrote beside them can be thousands of lines.
func complaints(said string) (lines []string) {
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		file, rest, ok := strings.Cut(line, ".go:")
		if number, _, colon := strings.Cut(rest, ": "); !ok || !colon || strings.ContainsAny(file, " \"/=") || strings.Trim(number, "0123456789") != "" {
			continue
		}
		if lines = append(lines, line[:min(len(line), 300)]); len(lines) == 5 {
			break
		}
	}
	return lines
}

// figures are the lines that a test marked as such: "    file.go:12: figure: …".
func figures(test string, said *strings.Builder) (lines []string) {
	if said == nil {
		return nil
	}
	for line := range strings.Lines(said.String()) {
		if _, figure, ok := strings.Cut(strings.TrimSpace(line), ": figure: "); ok {
			lines = append(lines, test+": "+figure)
		}
	}
	return lines
}

// reason is what the test said when it skipped: "file.go:12: need:root: why".
func reason(said *strings.Builder) string {
	if said == nil {
		return "no reason given"
	}
	for line := range strings.Lines(said.String()) {
		if _, why, ok := strings.Cut(strings.TrimSpace(line), ".go:"); ok {
			_, why, _ = strings.Cut(why, ": ")
			return why
		}
	}
	return strings.TrimSpace(said.String())
}

// reasons are lines of the summary: each reason with its tests.
func (r *results) reasons() []string {
	by := map[string][]string{}
	for _, s := range r.skipped {
		by[s.why] = append(by[s.why], strings.TrimPrefix(s.test, "nodeagent/"))
	}
	var lines []string
	for _, why := range slices.Sorted(maps.Keys(by)) {
		lines = append(lines, fmt.Sprintf("skipped %d: %s", len(by[why]), why))
		for _, t := range by[why] {
			lines = append(lines, "    "+t)
		}
	}
	return lines
}

// stuck are the tests of a package that failed before they ended: one that hangs says
// where only in what it is made to print last.
func (r *results) stuck(name string, said map[string]*strings.Builder) {
	for _, key := range slices.Sorted(maps.Keys(said)) {
		if strings.HasPrefix(key, name+" ") {
			fmt.Print(said[key].String())
			r.failed = append(r.failed, failure{test: key, why: []string{"it did not end"}})
			delete(said, key)
		}
	}
}
