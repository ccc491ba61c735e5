package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// snapshot is a booted guest at rest: the changes to its disk, and its memory.
type snapshot struct{ disk, ram string }

// booted returns the snapshot of the guest that o describes, and makes it if the
// cache has none: boot, wait until systemd is done, save.
func booted(ctx context.Context, d Image, o Options) (snapshot, error) {
	version, err := output(ctx, machines[o.Arch].binary, "--version")
	if err != nil {
		return snapshot{}, err
	}
	s := spec{arch: o.Arch, cmdline: o.Cmdline, memory: o.MemoryMiB, cpus: o.CPUs, disks: []drive{{}, {name: "payload"}}}
	dir, made, unlock, err := entry("boot-"+o.Arch, d.Key, version, s.argv(), snapshotRecipe)
	if err != nil {
		return snapshot{}, err
	}
	defer unlock()
	if made {
		return in(dir), nil
	}
	o.Durable, o.blank = false, true
	g, err := boot(ctx, d, o)
	if err != nil {
		return snapshot{}, err
	}
	tmp := dir + ".new"
	if err := errors.Join(os.RemoveAll(tmp), os.Mkdir(tmp, 0o755)); err != nil {
		return snapshot{}, g.abandon(err)
	}
	if err := g.save(ctx, tmp); err != nil {
		return snapshot{}, g.abandon(err)
	}
	return in(dir), errors.Join(os.Rename(tmp, dir), g.Close())
}

// stated starts a guest in the State that o names, made from the snapshot of the
// booted one. Where there is no run that keeps it, the guest itself is changed.
func stated(ctx context.Context, d Image, from snapshot, o Options) (*Guest, error) {
	change := func(o Options) (*Guest, error) {
		g, err := resume(ctx, d, from, o)
		if err != nil {
			return nil, err
		}
		if err := o.From.Make(ctx, g); err != nil {
			return nil, errors.Join(fmt.Errorf("make a guest %s: %w\n%s", o.From.Name, err, g.Report()), g.Close())
		}
		return g, nil
	}
	name := strings.Join(append([]string{"state", o.Arch, o.From.Name, strconv.Itoa(o.CPUs), strconv.Itoa(o.MemoryMiB)}, o.Cmdline...), "-")
	dir, made, err := shared(name, func(dir string) error {
		o := o
		o.Durable = false
		g, err := change(o)
		if err != nil {
			return err
		}
		return errors.Join(g.save(ctx, dir), g.Close())
	})
	switch {
	case err != nil:
		return nil, err
	case !made:
		return change(o)
	}
	return resume(ctx, d, in(dir), o)
}

// in is the snapshot that save has put into a directory.
func in(dir string) snapshot {
	return snapshot{disk: filepath.Join(dir, "disk.qcow2"), ram: filepath.Join(dir, "ram")}
}

// snapshotRecipe changes when save does.
const snapshotRecipe = 2

// save stops the guest and moves its disk and its memory into dir, which is on the
// same file system.
func (g *Guest) save(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if _, err := g.Shell(ctx, "journalctl --sync; sync"); err != nil {
		return err
	}
	g.mu.Lock()
	p := g.proc
	g.mu.Unlock()
	if err := p.qmp.do(ctx, "stop", nil); err != nil {
		return err
	}
	ram := filepath.Join(g.dir.path, "ram")
	if err := p.qmp.migrate(ctx, "migrate", "exec:cat > "+ram); err != nil {
		return fmt.Errorf("save the guest's memory: %w", err)
	}
	if err := p.qmp.do(ctx, "quit", nil); err != nil {
		return err
	}
	p.wait() // QEMU has written its disk out
	g.ended(p)
	g.mu.Lock()
	g.proc = nil
	g.mu.Unlock()
	snap := in(dir)
	return errors.Join(os.Rename(ram, snap.ram), os.Rename(g.spec.disks[0].path, snap.disk))
}

// resume starts a guest from a snapshot, in a few seconds.
func resume(ctx context.Context, d Image, snap snapshot, o Options) (*Guest, error) {
	g, err := makeGuest(ctx, d, drive{path: snap.disk, format: "qcow2"}, o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	s := g.spec
	s.incoming = true
	p, err := s.start(ctx)
	if err != nil {
		return nil, g.abandon(err)
	}
	g.proc = p
	if err := p.qmp.migrate(ctx, "migrate-incoming", "exec:cat "+snap.ram); err != nil {
		return nil, g.abandon(err)
	}
	if err := p.qmp.do(ctx, "cont", nil); err != nil {
		return nil, g.abandon(err)
	}
	if err := p.ch.hello(); err != nil {
		return nil, g.abandon(err)
	}
	if err := g.up(ctx, ""); err != nil {
		return nil, g.abandon(err)
	}
	return g, nil
}
