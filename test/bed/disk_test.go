package bed_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"nodeagent/test/bed"
)

// TestDisk proves that each fault of a small disk is the fault it says it is,
// and that a bed goes away with its disks.
func TestDisk(t *testing.T) {
	for _, private := range []bool{false, true} {
		b := bed.Containerd(t, bed.Options{Stock: true, Private: private})
		d := b.Disk(t.Context(), t, "node/state", 16<<20)
		file := filepath.Join(d.Dir, "x")
		write := func() error { return os.WriteFile(file, make([]byte, 64<<10), 0o600) }
		more := func() error { return os.WriteFile(file+"2", make([]byte, 64<<10), 0o600) }
		if err := write(); err != nil {
			t.Fatal(err)
		}
		if err := b.Do(func() error { _, err := os.Stat(file); return err }); err != nil {
			t.Errorf("private %v: the bed does not see the disk: %v", private, err)
		}
		if err := d.Fill(); err != nil {
			t.Fatal(err)
		}
		if err := more(); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("private %v: writing to a full disk gives %v", private, err)
		}
		if err := d.Free(); err != nil {
			t.Fatal(err)
		}
		if err := write(); err != nil {
			t.Errorf("private %v: writing with space back gives %v", private, err)
		}
		if err := d.Break(); err != nil {
			t.Fatal(err)
		}
		if err := write(); !errors.Is(err, unix.EROFS) {
			t.Errorf("private %v: writing to a broken disk gives %v", private, err)
		}
		cut := b.Disk(t.Context(), t, "node/logs", 16<<20)
		if err := cut.CutPower(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.ReadDir(cut.Dir); err == nil {
			if err := os.WriteFile(filepath.Join(cut.Dir, "x"), []byte("x"), 0o600); !errors.Is(err, unix.EIO) {
				t.Errorf("private %v: writing after the power cut gives %v", private, err)
			}
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}
