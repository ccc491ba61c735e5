//go:build linux

package shimapi

import (
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

// The lock excludes, and leaves no file.
func TestLockFile(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir := t.TempDir()
	var inside, most atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 20 {
				unlock, err := lockFile(filepath.Join(dir, "g.lock"))
				if err != nil {
					t.Error(err)
					return
				}
				most.Store(max(most.Load(), inside.Add(1)))
				inside.Add(-1)
				unlock()
			}
		})
	}
	wg.Wait()
	if most.Load() != 1 {
		t.Errorf("%d held the lock at once", most.Load())
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestListens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	want := func(alive bool) {
		t.Helper()
		if got, err := Listens(path); err != nil || got != alive {
			t.Errorf("Listens = %t, %v; want %t", got, err, alive)
		}
	}
	want(false)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	want(true)
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	want(false)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	want(false) // connect says ECONNREFUSED to what is no socket
}
