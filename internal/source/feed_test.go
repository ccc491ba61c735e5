package source

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// feed is a running source whose snapshots a test reads one by one.
type feed struct {
	t      *testing.T
	dir    string
	ch     chan Snapshot
	last   Snapshot
	count  int
	always func(Snapshot) // called for each snapshot
	marks  int
	litter bool // settle leaves its files behind
}

// start runs a source on path until the test ends. Its own rescan comes too
// seldom to hide a missed event.
func start(t *testing.T, path string, change func(*Config)) *feed {
	t.Helper()
	return startTuned(t, path, change, nil)
}

// startPatient is start for tests that take files away for a moment, which may
// be long on a busy machine.
func startPatient(t *testing.T, path string) *feed {
	t.Helper()
	f := startTuned(t, path, nil, func(m *Manifests) {
		m.patience = patience{deleted: time.Minute, moved: time.Minute}
	})
	f.litter = true
	return f
}

func startTuned(t *testing.T, path string, change func(*Config), tune func(*Manifests)) *feed {
	t.Helper()
	f := &feed{t: t, dir: path, ch: make(chan Snapshot, 1<<16)}
	m := testSource(t, path, func(c *Config) {
		c.Rescan = time.Hour
		c.Emit = func(s Snapshot) { f.ch <- s }
		if change != nil {
			change(c)
		}
	})
	if tune != nil {
		tune(m)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	f.until("the first snapshot", func(Snapshot) bool { return true })
	return f
}

// until reads snapshots until one is as wanted.
func (f *feed) until(what string, ok func(Snapshot) bool) Snapshot {
	f.t.Helper()
	if f.count > 0 && ok(f.last) {
		return f.last
	}
	limit := time.After(10 * time.Second)
	for {
		select {
		case s := <-f.ch:
			f.last = s
			f.count++
			if f.always != nil {
				f.always(s)
			}
			if ok(s) {
				return s
			}
		case <-limit:
			f.t.Fatalf("%s never came; the latest snapshot has %v, problems %+v", what, f.pods(), f.last.Problems)
		}
	}
}

func (f *feed) pods() []string { return podNames(f.last) }

func podNames(s Snapshot) []string {
	var out []string
	for _, p := range s.Pods {
		out = append(out, strings.TrimSuffix(p.Name, "-node1"))
	}
	return out
}

func (f *feed) untilPods(want ...string) Snapshot {
	f.t.Helper()
	return f.until(fmt.Sprint("pods ", want), func(s Snapshot) bool { return slices.Equal(podNames(s), want) })
}

func (f *feed) untilProblem(word string) Problem {
	f.t.Helper()
	var found Problem
	f.until("problem "+word, func(s Snapshot) bool {
		i := slices.IndexFunc(s.Problems, func(p Problem) bool { return strings.Contains(p.Message, word) })
		if i >= 0 {
			found = s.Problems[i]
		}
		return i >= 0
	})
	return found
}

// settle waits until all that happened before has been seen: what is written
// now is seen after it.
func (f *feed) settle() Snapshot {
	f.t.Helper()
	f.marks++
	name := fmt.Sprintf("zz-mark-%d", f.marks)
	f.write(name+".yaml", manifest(name))
	has := func(s Snapshot) bool { return slices.Contains(podNames(s), name) }
	f.until(name, has)
	if f.litter {
		return f.last
	}
	f.remove(name + ".yaml")
	return f.until(name+" to go", func(s Snapshot) bool { return !has(s) })
}

// keeps demands of every snapshot that the pods of these names stay the same.
func (f *feed) keeps(want ...string) {
	f.t.Helper()
	before := map[string]*corev1.Pod{}
	for i, name := range f.pods() {
		if slices.Contains(want, name) {
			before[name] = f.last.Pods[i]
		}
	}
	if len(before) != len(want) {
		f.t.Fatalf("have %v, want %v to keep", f.pods(), want)
	}
	f.always = func(s Snapshot) {
		for name, p := range before {
			if !slices.Contains(s.Pods, p) {
				f.t.Errorf("pod %s is gone or another: %v, %+v", name, podNames(s), s.Problems)
			}
		}
	}
}

func (f *feed) path(name string) string { return filepath.Join(f.dir, name) }

func (f *feed) write(name, text string) { put(f.t, f.path(name), text) }

func (f *feed) remove(name string) { do(f.t, os.Remove(f.path(name))) }

func (f *feed) rename(from, to string) { do(f.t, os.Rename(f.path(from), f.path(to))) }

func put(t testing.TB, path, text string) {
	t.Helper()
	do(t, os.WriteFile(path, []byte(text), 0o600))
}

func do(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
