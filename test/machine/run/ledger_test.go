package main

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeagent/internal/test/need"
	"nodeagent/test/machine/guest"
)

// TestNowhere: a test that skipped wherever it was tried is left out, unless this
// host has what the guest lacked, or it passed in one guest of several.
func TestNowhere(t *testing.T) {
	l := ledger{results: []guest.Result{
		{Guest: "host", Package: "p", Test: "TestRan", Action: "skip", Why: "need:systemd: PID 1 is not systemd"},
		{Guest: "v1", Package: "p", Test: "TestRan", Action: "skip", Why: "need:cgroup-v2: no"},
		{Guest: "v2", Package: "p", Test: "TestRan", Action: "pass"},
		{Guest: "host", Package: "p", Test: "TestNever", Action: "skip", Why: "need:systemd: PID 1 is not systemd"},
		{Guest: "v2", Package: "p", Test: "TestFailed", Action: "fail"},
		{Guest: "host", Package: "p", Test: "TestFailed", Action: "skip", Why: "need:ipvs: no"},
		{Guest: "v2", Package: "p", Test: "TestOnHost", Action: "skip", Why: "need:cgroup-v1: no"},
		{Guest: "v2", Package: "p", Test: "TestNoHost", Action: "skip", Why: "need:apparmor: no"},
		{Guest: "host", Package: "p", Test: "TestOther", Action: "skip", Why: "a seed of nothing"},
	}}
	got := l.nowhere(func(fact string) bool { return fact != "cgroup-v1" })
	want := []string{"p TestFailed: need:ipvs: no", "p TestNever: need:systemd: PID 1 is not systemd", "p TestNoHost: need:apparmor: no"}
	if !slices.Equal(got, want) {
		t.Errorf("left out: %q, want %q", got, want)
	}
}

// TestUnseen: what this host told nothing of cannot be taken for a test that skips
// nowhere.
func TestUnseen(t *testing.T) {
	l := ledger{results: []guest.Result{
		{Guest: "host", Package: "p", Test: "TestRan", Action: "pass"},
		{Guest: "v2", Package: "p", Test: "TestInGuest", Action: "pass"},
	}}
	for _, c := range []struct {
		pkg   string
		names []string
		want  []string
	}{
		{"p", nil, nil},
		{"p", []string{"TestRan"}, nil},
		{"p", []string{"TestRan", "TestInGuest"}, []string{"p TestInGuest"}},
		{"broken", nil, []string{"broken"}},
		{"broken", []string{"TestRan"}, []string{"broken TestRan"}},
	} {
		if got := l.unseen(c.pkg, c.names); !slices.Equal(got, c.want) {
			t.Errorf("%s %q: %q, want %q", c.pkg, c.names, got, c.want)
		}
	}
}

// TestWanting: packages are found by what their tests ask for and this host has not.
func TestWanting(t *testing.T) {
	root := t.TempDir()
	for path, body := range map[string]string{
		"internal/a/a_test.go":         "func TestA(t T) { t.Run(``, func(t T) { need.Have(t, need.Root, need.Systemd) }) }\nfunc TestNot(t T) { need.Have(t, need.Root) }",
		"internal/a/more_test.go":      "func TestB(t T) { need.Have(t, need.Systemd) }",
		"internal/b/b_test.go":         "func TestB(t T) { need.Have(t, need.Root) }",
		"internal/d/d_test.go":         "func TestD(t T) { need.Lacks(need.Systemd) }",
		"internal/e/e_test.go":         "func TestE(t T) { need.Have(t, need.Systemd); help(t) }\nfunc help(t T) { need.Have(t, need.Systemd) }",
		"internal/c/c.go":              "func TestC(t T) { need.Have(t, need.Systemd) }",
		"test/machine/x/m_test.go":     "func TestM(t T) { need.Have(t, need.Systemd) }",
		"internal/test/need/n_test.go": "func TestN(t T) { need.Have(t, need.Systemd) }",
	} {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("package p\n"+body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := wanting(root, func(f need.Fact) string {
		if f == need.Systemd {
			return "no"
		}
		return ""
	})
	want := map[string][]string{"nodeagent/internal/a": {"TestA", "TestB"}, "nodeagent/internal/e": nil}
	if err != nil || !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%q, %v", got, err)
	}
}

// TestNotRoot: who may not boot guests is told that nothing was proved, and why.
func TestNotRoot(t *testing.T) {
	r := &run{}
	err := r.run(t.Context(), "this user is not root")
	word, code := verdict(err)
	if !strings.HasPrefix(word, "SKIP ") || code != 0 {
		t.Errorf("it ends with %q and %d", word, code)
	}
	if r.ledger.skipped != 1 || r.ledger.passed != 0 || r.ledger.none() {
		t.Errorf("%d were skipped, %d passed", r.ledger.skipped, r.ledger.passed)
	}
	if word, code := verdict(nil); word != "PASS" || code != 0 {
		t.Errorf("what passed ends with %q and %d", word, code)
	}
	if word, code := verdict(errors.New("x")); word != "FAIL x" || code != 1 {
		t.Errorf("what failed ends with %q and %d", word, code)
	}
}

// TestCutsTime: a test that cuts the power as often as was asked for may take as
// long as it gives itself.
func TestCutsTime(t *testing.T) {
	for _, x := range []struct {
		cuts string
		own  time.Duration
	}{{"", 5 * time.Minute}, {"3", 20 * time.Minute}, {"20", 105 * time.Minute}, {"many", 5 * time.Minute}} {
		if got := cutsTime(x.cuts); got <= x.own || got > x.own+time.Hour {
			t.Errorf("%q cuts may take %v, and the test gives itself %v", x.cuts, got, x.own)
		}
	}
}

// TestInOrder: who takes longest begins, the others keep their order, who waits for
// most of its time stands apart, and every name of the lists is that of a test.
func TestInOrder(t *testing.T) {
	got := inOrder([]string{"TestB", longest[1], "TestA", longest[0]})
	if want := []string{longest[0], longest[1], "TestB", "TestA"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if busy, others := apart([]string{"TestB", idle[0], "TestA"}); !slices.Equal(busy, []string{"TestB", "TestA"}) || !slices.Equal(others, idle[:1]) {
		t.Errorf("busy %q, others %q", busy, others)
	}
	files, err := filepath.Glob("../*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(b)
	}
	for _, name := range append(slices.Clone(longest), idle...) {
		if !strings.Contains(text.String(), "func "+name+"(t *testing.T)") {
			t.Errorf("there is no %s", name)
		}
	}
}
