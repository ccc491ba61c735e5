package journal

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"nodeagent/internal/test/need"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stand puts a program of the test's in journalctl's place.
func stand(t *testing.T, script string) *Journal {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "journalctl"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/bin:/usr/bin")
	return New()
}

// TestArguments: all that a client says is part of an argument that begins with the name
// of its option.
func TestArguments(t *testing.T) {
	at := time.Date(2026, 2, 3, 4, 5, 6, 7000, time.FixedZone("elsewhere", 3600))
	var out bytes.Buffer
	err := stand(t, `printf '%s\n' "$@"`).Read(t.Context(), &out, Query{
		Units: []string{"kubelet", "--file=x"}, Since: at, Until: at.Add(time.Second), Lines: new(5), Pattern: "--help $(id)\n;x", Boot: new(-1),
	})
	want := "--utc\n--no-pager\n--output=short-precise\n--since=@1770087906.000007\n--until=@1770087907.000007\n--lines=5\n" +
		"--unit=kubelet\n--unit=--file=x\n--grep=--help $(id)\n;x\n--boot=-1\n"
	if err != nil || out.String() != want {
		t.Errorf("%v\n%s\nwant\n%s", err, &out, want)
	}
}

// TestHas knows units by their whole names.
func TestHas(t *testing.T) {
	for script, want := range map[string]string{
		`[ "$*" = --field=_SYSTEMD_UNIT ] && printf 'my-kubelet.service\nkubelet.service\nx.scope\n'`: "kubelet x.scope",
		`echo kubelet.service; exit 1`: "",
		`exec yes kubelet.service`:     "", // more names than there can be
		"kill $$":                      "",
	} {
		got, err := stand(t, script).Has(t.Context(), []string{"kubelet", "let", "x.scope", "x"})
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: %v, %v", script, got, err)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if got, err := New().Has(t.Context(), []string{"kubelet"}); err != nil || len(got) > 0 {
		t.Errorf("without journalctl: %v, %v", got, err)
	}
}

// TestReadWords: what it says of itself is part of the answer, however it ends.
func TestReadWords(t *testing.T) {
	var out bytes.Buffer
	if err := stand(t, `echo line; echo -- No entries -- >&2; exit 1`).Read(t.Context(), &out, Query{}); err != nil || out.String() != "line\n-- No entries --\n" {
		t.Errorf("%q, %v", &out, err)
	}
}

// TestReadBounds: neither its time nor what it says is without end, and a program that
// was ended leaves none behind.
func TestReadBounds(t *testing.T) {
	j := stand(t, `echo begun; exec sleep 1000`)
	j.limit = 100 * time.Millisecond
	var out bytes.Buffer
	if err := j.Read(t.Context(), &out, Query{}); err == nil || out.String() != "begun\n" && out.Len() > 0 {
		t.Errorf("one that does not end: %q, %v", &out, err)
	}
	var sum counter
	if err := stand(t, `exec yes`).Read(t.Context(), &sum, Query{}); !errors.Is(err, ErrTooMuch) || sum != maxOutput {
		t.Errorf("one that says too much: %d bytes, %v", sum, err)
	}
	gone := errors.New("the client is gone")
	if err := stand(t, `exec yes`).Read(t.Context(), refuses{gone}, Query{}); !errors.Is(err, gone) {
		t.Errorf("one that is heard by nobody: %v", err)
	}
}

type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

type refuses struct{ err error }

func (r refuses) Write([]byte) (int, error) { return 0, r.err }

// TestAtOnce: who comes when all places are taken is told so.
func TestAtOnce(t *testing.T) {
	j := stand(t, `echo there; exec sleep 1000`)
	ctx, cancel := context.WithCancel(t.Context())
	there, ended := make(chan struct{}), make(chan error)
	for range atOnce {
		go func() { ended <- j.Read(ctx, tells{there}, Query{}) }()
	}
	for range atOnce {
		<-there
	}
	if err := j.Read(ctx, &bytes.Buffer{}, Query{}); !errors.Is(err, ErrBusy) {
		t.Errorf("one too many: %v", err)
	}
	cancel()
	for range atOnce {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("one whose client is gone: %v", err)
		}
	}
	if len(j.places) > 0 {
		t.Error("places are not given back")
	}
}

type tells struct{ there chan<- struct{} }

func (w tells) Write(p []byte) (int, error) {
	w.there <- struct{}{}
	return len(p), nil
}

// FuzzArguments: whatever is asked for, every argument begins with one of our options.
func FuzzArguments(f *testing.F) {
	f.Add("kubelet", "x", 1, int64(0))
	f.Fuzz(func(t *testing.T, unit, pattern string, n int, at int64) {
		options := []string{"--utc", "--no-pager", "--output=", "--since=@", "--until=@", "--lines=", "--unit=", "--grep=", "--boot="}
		for _, arg := range arguments(Query{Units: []string{unit}, Pattern: pattern, Lines: &n, Boot: &n, Since: time.Unix(at, 0), Until: time.Unix(0, at)}) {
			if !slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(arg, o) }) {
				t.Errorf("%q is an argument", arg)
			}
		}
	})
}

// TestRealJournal reads that of a machine that has one.
func TestRealJournal(t *testing.T) {
	need.Have(t, need.Systemd)
	j := New()
	got, err := j.Has(t.Context(), []string{"systemd-journald", "journald", "none"})
	if err != nil || !slices.Equal(got, []string{"systemd-journald"}) {
		t.Fatalf("the journal has something of %q, %v", got, err)
	}
	var all, last, none, later bytes.Buffer
	for _, one := range []struct {
		w *bytes.Buffer
		q Query
	}{
		{&all, Query{Units: got, Boot: new(0)}}, {&last, Query{Units: got, Lines: new(1)}},
		{&none, Query{Units: got, Pattern: "^none of these words$"}}, {&later, Query{Units: got, Since: time.Now().Add(time.Hour)}},
	} {
		if err := j.Read(t.Context(), one.w, one.q); err != nil {
			t.Fatal(err)
		}
	}
	line := func(b *bytes.Buffer) string { // the last one: some releases have a head
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		return lines[len(lines)-1]
	}
	if !strings.Contains(all.String(), "systemd-journald[") || line(&all) != line(&last) || last.Len() >= all.Len() ||
		strings.Contains(none.String(), "systemd-journald[") || strings.Contains(later.String(), "systemd-journald[") {
		t.Errorf("all is\n%s\nthe last is\n%s\nwhat matches is\n%s\nwhat comes later is\n%s", &all, &last, &none, &later)
	}
}
