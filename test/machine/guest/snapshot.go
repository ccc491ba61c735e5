package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	s := spec{arch: o.Arch, cmdline: o.Cmdline, memory: o.MemoryMiB, cpus: o.CPUs, disks: []drive{{}}}
	dir, made, unlock, err := entry("boot-"+o.Arch, d.Key, version, s.argv(), snapshotRecipe)
	if err != nil {
		return snapshot{}, err
	}
	defer unlock()
	snap := snapshot{disk: filepath.Join(dir, "disk.qcow2"), ram: filepath.Join(dir, "ram")}
	if made {
		return snap, nil
	}
	o.Durable = false
	g, err := boot(ctx, d, o)
	if err != nil {
		return snapshot{}, err
	}
	if err := g.save(ctx, dir); err != nil {
		return snapshot{}, g.abandon(err)
	}
	return snap, g.Close()
}

// snapshotRecipe changes when save does.
const snapshotRecipe = 1

// save stops the guest and moves its disk and its memory into dir.
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
	g.mu.Lock()
	g.proc = nil
	g.mu.Unlock()
	tmp := dir + ".new"
	return errors.Join(
		os.RemoveAll(tmp),
		os.Mkdir(tmp, 0o755),
		os.Rename(ram, filepath.Join(tmp, "ram")),
		os.Rename(g.spec.disks[0].path, filepath.Join(tmp, "disk.qcow2")),
		os.Rename(tmp, dir),
	)
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
