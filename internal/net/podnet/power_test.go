package podnet

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/test/env"
	"nodeagent/internal/test/need"
	"nodeagent/internal/test/power"
)

// TestPowerCut cuts the power of the state directory's disk while networks of
// plugins come and go, and loads the records as a daemon that starts does: each
// record that was written is there, so that its address can be given back, each
// that was dropped is gone, none is refused. PODNET_SEED repeats a row of moments.
func TestPowerCut(t *testing.T) {
	need.Have(t, need.Root)
	rng := rand.New(rand.NewPCG(env.Seed(t, "PODNET_SEED"), 0))
	dir, below := t.TempDir(), t.TempDir()
	must(t, unix.Mount("none", below, "tmpfs", 0, "size=40m")) // a busy disk would take minutes
	t.Cleanup(func() { must(t, unix.Unmount(below, 0)) })
	image := filepath.Join(below, "image")
	tool(t, "truncate", "-s", "32M", image)
	tool(t, "mkfs.ext4", "-q", image)
	plug(t, image, dir)
	t.Cleanup(func() { tool(t, "umount", dir) })
	promised := map[string]*record{} // by sandbox
	for cut := range 60 {
		n := onDisk(t, dir)
		var mu sync.Mutex
		var open []change
		after, spin := 1+rng.IntN(12), time.Duration(rng.Int64N(int64(2*time.Millisecond)))
		due := make(chan struct{})
		var once sync.Once
		var wg sync.WaitGroup
		for i := range 3 {
			mine := rand.New(rand.NewPCG(rng.Uint64(), uint64(i)))
			wg.Go(func() {
				for done := 0; ; {
					for _, c := range changes(fmt.Sprintf("s%d-%d-%d", cut, i, done), mine) {
						if err := c.make(n); err != nil {
							mu.Lock()
							open = append(open, c)
							mu.Unlock()
							return
						}
						mu.Lock()
						c.note(promised)
						mu.Unlock()
						if done++; done >= after {
							once.Do(func() { close(due) })
						}
					}
				}
			})
		}
		<-due
		for since := time.Now(); time.Since(since) < spin; {
		}
		kind := power.Kind(cut % 3)
		must(t, power.Cut(dir, kind))
		wg.Wait()
		tool(t, "umount", dir)
		plug(t, image, dir)
		compare(t, dir, promised, open)
		if t.Failed() {
			t.Fatalf("cut %d (%s)", cut, kind)
		}
	}
}

// plug mounts the disk.
func plug(t *testing.T, image, dir string) {
	t.Helper()
	_, err := power.Mount(image, dir)
	must(t, err)
}

// change is one write of a journal: of a record, or of its end.
type change struct {
	rec *record
	end bool
}

// changes are those of a pod's network: begun, done, and for some the end.
func changes(sandbox string, rng *rand.Rand) []change {
	begun := &record{Sandbox: sandbox, Netns: "/run/netns/" + sandbox, CNI: &cniCall{Conf: fakeConf, List: true}}
	done := *begun
	done.Done, done.Addrs = true, []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(rng.IntN(250))})}
	out := []change{{rec: begun}, {rec: &done}}
	if rng.IntN(3) > 0 {
		out = append(out, change{rec: &done, end: true})
	}
	return out
}

func (c change) make(n *Network) error {
	if c.end {
		return n.forget(c.rec)
	}
	return n.save(c.rec)
}

func (c change) note(promised map[string]*record) {
	promised[c.rec.Sandbox] = c.rec
	if c.end {
		delete(promised, c.rec.Sandbox)
	}
}

// complaints fails the test when the daemon would report an unusable record.
type complaints struct {
	slog.Handler
	t *testing.T
}

func (c complaints) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		r.Attrs(func(a slog.Attr) bool { r.Message += " " + a.String(); return true })
		c.t.Error(r.Message)
	}
	return nil
}

func (complaints) Enabled(context.Context, slog.Level) bool { return true }

func onDisk(t *testing.T, dir string) *Network {
	t.Helper()
	n, err := New(Config{
		StateDir: dir, RunDir: filepath.Join(t.TempDir(), "run"), CNIConfDir: dir, CNIBinDir: dir,
		Logger: slog.New(complaints{slog.DiscardHandler, t}),
	})
	must(t, err)
	return n
}

func compare(t *testing.T, dir string, promised map[string]*record, open []change) {
	t.Helper()
	recs, err := onDisk(t, dir).loadCNI()
	must(t, err)
	found := map[string]*record{}
	for _, r := range recs {
		found[r.Sandbox] = r
	}
	for _, c := range open { // at work when the power went: done or not
		got := found[c.rec.Sandbox]
		if c.end && got == nil || !c.end && reflect.DeepEqual(got, c.rec) {
			c.note(promised)
		}
	}
	for id, want := range promised {
		if !reflect.DeepEqual(found[id], want) {
			t.Errorf("record of %s is %+v, was written as %+v", id, found[id], want)
		}
	}
	for id := range found {
		if promised[id] == nil {
			t.Errorf("record of %s is back", id)
		}
	}
	temps, err := filepath.Glob(filepath.Join(dir, "podnet", ".tmp-*"))
	must(t, err)
	if len(temps) > 0 {
		t.Errorf("left: %v", temps)
	}
}

func tool(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
}
