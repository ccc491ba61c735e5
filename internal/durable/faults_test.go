package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"nodeagent/internal/test/need"
)

// fill writes until the file system is full, and returns how to make room.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "fill")
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	for size := 1 << 16; size > 0; {
		if _, err = f.Write(make([]byte, size)); err == nil {
			err = f.Sync()
		}
		if err != nil {
			size /= 2
		}
	}
	return func() { must(t, os.Remove(path)) }
}

// heals checks that a fault loses nothing, is named, and ends with its cause.
func heals(t *testing.T, d *Dir, is func(error) bool, free func()) {
	t.Helper()
	big := make([]byte, 1<<18)
	err := d.Save("x", 1, big)
	if err == nil || !is(err) {
		t.Errorf("save: %v", err)
	}
	wantLoad(t, d, "x", Current, "kept")
	free()
	_, err = d.Prepare()
	must(t, err)
	must(t, d.Save("x", 1, big))
	wantLoad(t, d, "x", Current, string(big))
	l, err := filepath.Glob(filepath.Join(d.path, tempPrefix+"*"))
	if len(l) != 0 || err != nil {
		t.Errorf("left: %v", l)
	}
}

func TestDiskFull(t *testing.T) {
	need.Have(t, need.Root)
	t.Run("tmpfs", func(t *testing.T) {
		dir, _ := mount(t, "none", "tmpfs", "size=1m")
		d := newDir(t, filepath.Join(dir, "state"))
		must(t, d.Save("x", 1, []byte("kept")))
		heals(t, d, IsNoSpace, fill(t, dir))
	})
	t.Run("ext4", func(t *testing.T) {
		_, dir, _ := ext4(t, t.TempDir(), "8M")
		d := newDir(t, filepath.Join(dir, "state"))
		must(t, d.Save("x", 1, []byte("kept")))
		heals(t, d, IsNoSpace, fill(t, dir))
	})
	t.Run("inodes", func(t *testing.T) {
		dir, _ := mount(t, "none", "tmpfs", "size=8m,nr_inodes=8")
		d := newDir(t, filepath.Join(dir, "state"))
		must(t, d.Save("x", 1, []byte("kept")))
		var made []string
		for i := 0; ; i++ {
			p := filepath.Join(dir, strconv.Itoa(i))
			if os.WriteFile(p, nil, 0o600) != nil {
				break
			}
			made = append(made, p)
		}
		heals(t, d, IsNoSpace, func() {
			for _, p := range made {
				must(t, os.Remove(p))
			}
		})
	})
}

// TestLateNoSpace: the file system has room, the disk below has not. write
// succeeds, fsync fails: not written.
func TestLateNoSpace(t *testing.T) {
	need.Have(t, need.Root)
	below, _ := mount(t, "none", "tmpfs", "size=8m")
	_, dir, umount := ext4(t, below, "64M", "-O", "^has_journal")
	d := newDir(t, filepath.Join(dir, "state"))
	must(t, d.Save("x", 1, []byte("kept")))
	free := fill(t, below)
	err := d.Save("x", 1, make([]byte, 16<<20))
	if err == nil {
		t.Error("save succeeded though the disk has no room")
	}
	t.Log(err)
	wantLoad(t, d, "x", Current, "kept")
	free()
	umount()
}

func TestReadOnly(t *testing.T) {
	need.Have(t, need.Root)
	dir, _ := mount(t, "none", "tmpfs", "size=1m")
	d := newDir(t, filepath.Join(dir, "state"))
	must(t, d.Save("x", 1, []byte("kept")))
	must(t, d.Save("y", 1, []byte("old")))
	must(t, d.Save("y", 1, []byte("new")))
	must(t, os.Truncate(d.full("y"), 2))
	must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	if err := d.Save("x", 1, []byte("new")); !IsReadOnly(err) {
		t.Errorf("save: %v", err)
	}
	wantLoad(t, d, "x", Current, "kept")
	// A bad file cannot be put aside there, and that is no reason to stop.
	if l := wantLoad(t, d, "y", Previous, "old"); len(l.Bad) != 1 || l.Bad[0].Aside != "" {
		t.Errorf("bad: %+v", l.Bad)
	}
	must(t, unix.Mount("", dir, "", unix.MS_REMOUNT, "size=1m"))
	must(t, d.Save("x", 1, []byte("new")))
}

func TestPredicates(t *testing.T) {
	for err, want := range map[error][2]bool{
		fmt.Errorf("x: %w", unix.ENOSPC): {true, false}, fmt.Errorf("x: %w", unix.EDQUOT): {true, false},
		fmt.Errorf("x: %w", unix.EROFS): {false, true}, errors.New("x"): {false, false},
	} {
		if IsNoSpace(err) != want[0] || IsReadOnly(err) != want[1] {
			t.Errorf("%v: %v, %v", err, IsNoSpace(err), IsReadOnly(err))
		}
	}
}
