package main

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestReasons proves that the summary says which tests were skipped and why, and
// which failed, and what those that passed measured.
func TestReasons(t *testing.T) {
	var r results
	said := map[string]*strings.Builder{}
	for _, e := range []event{
		{Action: "output", Package: "nodeagent/a", Test: "TestOne", Output: "=== RUN   TestOne\n"},
		{Action: "output", Package: "nodeagent/a", Test: "TestOne", Output: "    a_test.go:12: need:root: only root may\n"},
		{Action: "skip", Package: "nodeagent/a", Test: "TestOne"},
		{Action: "output", Package: "nodeagent/b", Test: "TestTwo/x", Output: "    b_test.go:7: need:root: only root may\n"},
		{Action: "skip", Package: "nodeagent/b", Test: "TestTwo/x"},
		{Action: "skip", Package: "nodeagent/b"}, // a package without tests
		{Action: "output", Package: "nodeagent/b", Test: "TestThree", Output: "    cluster.go:77: figure: up in 5.00 s: keys 0.01\n"},
		{Action: "output", Package: "nodeagent/b", Test: "TestThree", Output: "    cluster.go:80: up\n"},
		{Action: "pass", Package: "nodeagent/b", Test: "TestThree"},
		{Action: "pass", Package: "nodeagent/b"},
		{Action: "output", Package: "nodeagent/c", Test: "TestFour", Output: "    containerd.go:36: /bed/containerd.log:\n"},
		{Action: "output", Package: "nodeagent/c", Test: "TestFour", Output: "        time=12 level=error msg=\"main.go:7: gone\"\n"},
		{Action: "output", Package: "nodeagent/c", Test: "TestFour", Output: "    c_test.go:54: shims are left: [7]\n"},
		{Action: "fail", Package: "nodeagent/c", Test: "TestFour"},
		{Action: "output", Package: "nodeagent/c", Test: "TestFive", Output: "=== RUN   TestFive\n"},
		{Action: "output", Package: "nodeagent/c", Test: "TestFive", Output: "panic: test timed out\n"},
		{Action: "fail", Package: "nodeagent/c"},
	} {
		r.add(e, said)
	}
	want := []string{"skipped 2: need:root: only root may", "    a TestOne", "    b TestTwo/x"}
	if got := r.reasons(); !slices.Equal(got, want) {
		t.Errorf("the summary says %q, want %q", got, want)
	}
	if want := []string{"TestThree: up in 5.00 s: keys 0.01"}; !slices.Equal(r.figures, want) {
		t.Errorf("the summary has the figures %q, want %q", r.figures, want)
	}
	failed := []failure{{"nodeagent/c TestFour", []string{"containerd.go:36: /bed/containerd.log:", "c_test.go:54: shims are left: [7]"}}, {"nodeagent/c TestFive", []string{"it did not end"}}}
	if r.passed != 1 || len(r.skipped) != 2 || !reflect.DeepEqual(r.failed, failed) {
		t.Errorf("counted %d passed, %d skipped, failed %q", r.passed, len(r.skipped), r.failed)
	}
}
