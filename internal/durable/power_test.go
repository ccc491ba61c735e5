package durable

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nodeagent/internal/test/env"
	"nodeagent/internal/test/need"
	"nodeagent/internal/test/power"
)

// TestPowerCut cuts the power of a disk at random moments while writers save,
// overwrite and remove, and looks at it as a daemon that starts does: every call
// that returned nil is there, whole, in its newest generation; a call that was
// at work has happened or not; nothing is put aside; no temporary file stays.
// DURABLE_CUTS sets the number of cuts, DURABLE_SEED repeats a row of moments.
func TestPowerCut(t *testing.T) {
	need.Have(t, need.Root)
	cuts, seed := env.Number(t, "DURABLE_CUTS", 200), env.Seed(t, "DURABLE_SEED")
	rng := rand.New(rand.NewPCG(seed, 0))
	// In memory: what the disk below does about a flush is not the matter, and on
	// a busy one 200 cuts take minutes.
	below, _ := mount(t, "none", "tmpfs", "size=80m")
	image, dir, umount := ext4(t, below, "64M")
	var writers []*writer
	for i := range 4 {
		writers = append(writers, newWriter(i, rng.Uint64()))
	}
	var acked atomic.Int64
	var temps int
	for cut := range int(cuts) {
		kind := power.Kind(cut % 3)
		// So many calls and so long after them: the moment is anywhere in a call.
		after, spin := rng.Int64N(24), time.Duration(rng.Int64N(int64(3*time.Millisecond)))
		start := acked.Load()
		var row sync.WaitGroup
		due := make(chan struct{})
		var once sync.Once
		for _, w := range writers {
			row.Go(func() {
				for w.step(t, dir) {
					if acked.Add(1)-start >= after {
						once.Do(func() { close(due) })
					}
				}
			})
		}
		<-due
		for since := time.Now(); time.Since(since) < spin; {
		}
		must(t, power.Cut(dir, kind))
		row.Wait() // each writer ends at its first error
		umount()
		dir, umount = loop(t, image)
		for _, w := range writers {
			temps += w.check(t, dir)
		}
		if t.Failed() {
			t.Fatalf("cut %d (%s)", cut, kind)
		}
	}
	umount()
	run(t, "e2fsck", "-fn", image)
	t.Logf("%d cuts, %d calls acknowledged, %d temporary files removed afterwards", cuts, acked.Load(), temps)
}

// writer is one owner of state files. It knows what it was promised.
type writer struct {
	id    int
	rng   *rand.Rand
	dir   string            // of its own, now and then a new one; below the disk
	dirs  int               // so many were made
	acked map[string][]byte // path below the disk: content
	// The call that was at work when the power went: nil content is a removal.
	doing   string
	content []byte
}

func newWriter(id int, seed uint64) *writer {
	return &writer{id: id, rng: rand.New(rand.NewPCG(seed, uint64(id))), acked: map[string][]byte{}}
}

// step makes one call and tells whether it was acknowledged.
func (w *writer) step(t *testing.T, disk string) bool {
	if w.dir == "" || w.rng.IntN(40) == 0 {
		w.dirs++
		w.dir = fmt.Sprintf("state-%d/%d", w.id, w.dirs%4)
	}
	d, err := New(Config{Path: filepath.Join(disk, w.dir)})
	if err != nil {
		t.Error(err)
		return false
	}
	name := string(rune('a' + w.rng.IntN(5)))
	path := filepath.Join(w.dir, name)
	if _, exists := w.acked[path]; exists && w.rng.IntN(3) == 0 {
		w.doing, w.content = path, nil
		if d.Remove(name) != nil {
			return false
		}
		delete(w.acked, path)
		return true
	}
	if _, err := os.Stat(d.path); err != nil {
		if _, err := d.Prepare(); err != nil {
			return false
		}
	}
	w.doing, w.content = path, w.payload()
	if d.Save(name, 1, w.content) != nil {
		return false
	}
	w.acked[path] = w.content
	return true
}

// payload is of any size up to some blocks, mostly small as records are, and of
// bytes that are in no other one.
func (w *writer) payload() []byte {
	size := 1 + w.rng.IntN(600)
	if w.rng.IntN(8) == 0 {
		size = w.rng.IntN(40_000)
	}
	// The number is its own, the rest is the same for all.
	return binary.BigEndian.AppendUint64(bytes.Repeat([]byte{0xa5}, size), w.rng.Uint64())
}

// check is the next daemon's look at the files of w. It returns how many
// temporary files there were.
func (w *writer) check(t *testing.T, disk string) (temps int) {
	t.Helper()
	found := map[string][]byte{}
	dirs, err := filepath.Glob(filepath.Join(disk, fmt.Sprintf("state-%d/*", w.id)))
	must(t, err)
	for _, path := range dirs {
		d, err := New(Config{Path: path})
		must(t, err)
		removed, err := d.Prepare()
		must(t, err)
		temps += len(removed)
		names, err := d.Names()
		must(t, err)
		for _, name := range names {
			l, err := d.Load(name, nil)
			if err != nil || len(l.Bad) > 0 || l.Generation != Current {
				t.Errorf("%s/%s: generation %d, bad %v, %v", path, name, l.Generation, l.Bad, err)
			}
			rel, _ := filepath.Rel(disk, d.full(name))
			found[rel] = l.Payload
		}
		left, err := os.ReadDir(path)
		must(t, err)
		for _, e := range left {
			if strings.HasPrefix(e.Name(), tempPrefix) || strings.Contains(e.Name(), badInfix) {
				t.Errorf("left in %s: %s", path, e.Name())
			}
		}
	}
	w.settle(found)
	for path, want := range w.acked {
		if got, ok := found[path]; !ok {
			t.Errorf("%s: acknowledged and gone", path)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s: acknowledged content of %d bytes is another of %d", path, len(want), len(got))
		}
	}
	for path := range found {
		if _, ok := w.acked[path]; !ok {
			t.Errorf("%s: removed and back", path)
		}
	}
	return temps
}

// settle takes the call that was at work as done if its effect is there.
func (w *writer) settle(found map[string][]byte) {
	got, ok := found[w.doing]
	switch {
	case w.doing == "":
	case w.content == nil && !ok:
		delete(w.acked, w.doing)
	case w.content != nil && ok && bytes.Equal(got, w.content):
		w.acked[w.doing] = w.content
	}
	w.doing, w.content = "", nil
}
