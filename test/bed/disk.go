package bed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nodeagent/internal/test/power"
)

// Disk is a small ext4 file system of its own, mounted at a directory of the
// bed, that a test can fill, break and cut from its power.
type Disk struct {
	Dir  string
	bed  *Bed
	img  string
	loop string // its device, such as loop0
}

// Disk mounts a new file system of size bytes at dir, a path relative to the
// bed's directory such as "node/state", before the daemon is made there. More
// arguments go to mkfs.ext4 ("-N", "64" for few inodes).
func (b *Bed) Disk(ctx context.Context, t testing.TB, dir string, size int64, mkfs ...string) *Disk {
	t.Helper()
	d := &Disk{Dir: filepath.Join(b.data, dir), bed: b}
	if err := d.mount(ctx, size, mkfs); err != nil {
		t.Fatalf("make a small disk at %s: %v", dir, err)
	}
	return d
}

func (d *Disk) mount(ctx context.Context, size int64, mkfs []string) error {
	img := filepath.Join(d.bed.dir, "tmp", strings.ReplaceAll(filepath.Base(d.Dir), "/", "-")+".img")
	f, err := os.Create(img)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return err
	}
	// The loop device ends with its last mount, so a sweep needs only to unmount.
	argv := append(append([]string{"mkfs.ext4", "-q", "-m", "0"}, mkfs...), img)
	if err := errors.Join(os.MkdirAll(d.Dir, 0o755), command(ctx, argv...)); err != nil {
		return err
	}
	d.img = img
	return d.attach(ctx)
}

// attach mounts the disk, in the host's mount namespace and in a private one.
func (d *Disk) attach(ctx context.Context) error {
	device, err := power.Mount(d.img, d.Dir, "errors=remount-ro")
	if err != nil {
		return err
	}
	d.loop = filepath.Base(device)
	if !d.bed.opts.Private {
		return nil
	}
	return d.bed.Do(func() error { return unix.Mount(device, d.Dir, "ext4", 0, "errors=remount-ro") })
}

func command(ctx context.Context, argv ...string) error {
	if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
	}
	return nil
}

const filler = "bed-filler"

// Fill takes all the space that is left.
func (d *Disk) Fill() error {
	f, err := os.OpenFile(filepath.Join(d.Dir, filler), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 1 << 20; size >= 4096; { // a block
		_, err := io.Copy(f, io.LimitReader(zeros{}, int64(size)))
		if errors.Is(err, unix.ENOSPC) {
			size /= 16 // the last blocks go in small pieces; each refusal costs a commit
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Free gives the space back.
func (d *Disk) Free() error { return os.Remove(filepath.Join(d.Dir, filler)) }

// Break makes the kernel see an error in the file system, which then is
// read-only for ever.
func (d *Disk) Break() error {
	return os.WriteFile("/sys/fs/ext4/"+d.loop+"/trigger_fs_error", []byte("1"), 0)
}

// CutPower drops everything that was not committed and stops the file system, as
// a power cut does.
func (d *Disk) CutPower() error { return power.Cut(d.Dir, power.FlushNothing) }

// Remount mounts the disk anew after a power cut, as a boot does. Nobody may have
// a file of it open any more.
func (d *Disk) Remount(ctx context.Context) error {
	if d.bed.opts.Private {
		if err := d.bed.Do(func() error { return unix.Unmount(d.Dir, 0) }); err != nil {
			return err
		}
	}
	return errors.Join(command(ctx, "umount", d.Dir), d.attach(ctx))
}
