package guest

import (
	"slices"
	"testing"
	"time"
)

func TestSplit(t *testing.T) {
	tags, timeout, rest := split([]string{"-run", "TestA|TestB", "-tags=failpoints", "-timeout", "3m", "-short", "--skip=TestC", "-seeds=3"})
	want := []string{"-test.run=TestA|TestB", "-test.short", "-test.skip=TestC", "-seeds=3"}
	if tags != "failpoints" || timeout != 3*time.Minute || !slices.Equal(rest, want) {
		t.Errorf("%q %v %q, want %q", tags, timeout, rest, want)
	}
	if _, timeout, _ := split(nil); timeout != 30*time.Minute {
		t.Errorf("without a word: %v", timeout)
	}
}

func TestReason(t *testing.T) {
	for said, want := range map[string]string{
		"=== RUN   TestA\n    a_test.go:12: need:root: only root may\n": "need:root: only root may",
		"    sub/a_test.go:1: x: y\n":                                   "x: y",
		"":                                                              "no reason given",
	} {
		if got := Reason(said); got != want {
			t.Errorf("%q: %q, want %q", said, got, want)
		}
	}
}
