package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// report is what ginkgo's JSON report says of each test.
type report struct {
	Specs []spec
	// Special are failures outside tests, of the set-up of the whole suite.
	Special []string
}

// spec is one test.
type spec struct {
	Hierarchy []string `json:"ContainerHierarchyTexts"`
	Leaf      string   `json:"LeafNodeText"`
	LeafType  string   `json:"LeafNodeType"`
	State     string
	RunTime   time.Duration
	Failure   struct {
		Message  string
		Location struct {
			FileName   string
			LineNumber int
		}
	}
}

func (s spec) name() string { return strings.Join(append(slices.Clone(s.Hierarchy), s.Leaf), " ") }

// reason is the first line of a failure that says something, and where it is.
func (s spec) reason() string {
	var line string
	for l := range strings.Lines(s.Failure.Message) {
		if line = strings.TrimSpace(l); line != "" {
			break
		}
	}
	file := s.Failure.Location.FileName
	if _, after, ok := strings.Cut(file, "/test/e2e/"); ok {
		file = after
	}
	return fmt.Sprintf("%s (%s:%d)", line, file, s.Failure.Location.LineNumber)
}

func readReport(path string) (r report, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return r, fmt.Errorf("read the suite's report: %w", err)
	}
	return parseReport(b)
}

func parseReport(b []byte) (r report, err error) {
	var suites []struct {
		SpecReports                []spec
		SpecialSuiteFailureReasons []string
	}
	if err := json.Unmarshal(b, &suites); err != nil {
		return r, fmt.Errorf("read the suite's report: %w", err)
	}
	for _, s := range suites {
		r.Specs = append(r.Specs, s.SpecReports...)
		r.Special = append(r.Special, s.SpecialSuiteFailureReasons...)
	}
	return r, nil
}

// failed are the tests, and what stands around all of them, that did not pass
// although they ran.
func (r report) failed() []spec {
	return slices.DeleteFunc(slices.Clone(r.Specs), func(s spec) bool {
		return s.State == "passed" || s.State == "skipped" || s.State == "pending" || s.State == ""
	})
}

// count is how many tests are in a state.
func (r report) count(state string) (n int) {
	for _, s := range r.Specs {
		if s.LeafType == "It" && s.State == state {
			n++
		}
	}
	return n
}

// print writes the failures, what skipped itself, and the sum.
func (r report) print(w io.Writer) {
	failed := r.failed()
	slices.SortFunc(failed, func(a, b spec) int { return strings.Compare(a.name(), b.name()) })
	for _, s := range failed {
		fmt.Fprintf(w, "%s: %s\n\t%s, %.0f s\n", strings.ToUpper(s.State), s.name(), s.reason(), s.RunTime.Seconds())
	}
	for _, s := range r.Specs {
		// One that the focus left out says nothing.
		if s.State == "skipped" && s.Failure.Message != "" {
			fmt.Fprintf(w, "SKIPPED: %s\n\t%s\n", s.name(), s.reason())
		}
	}
	for _, line := range r.Special {
		fmt.Fprintln(w, "SUITE:", line)
	}
	passed := r.count("passed")
	fmt.Fprintf(w, "%d of %d passed, %d failed\n", passed, passed+len(failed), len(failed))
}
