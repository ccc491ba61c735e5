package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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

// TestInOrder: who takes longest begins, the others keep their order, and every
// name of the list is that of a test.
func TestInOrder(t *testing.T) {
	got := inOrder([]string{"TestB", longest[1], "TestA", longest[0]})
	if want := []string{longest[0], longest[1], "TestB", "TestA"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
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
	for _, name := range longest {
		if !strings.Contains(text.String(), "func "+name+"(t *testing.T)") {
			t.Errorf("there is no %s", name)
		}
	}
}
