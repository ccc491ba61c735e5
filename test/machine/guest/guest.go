package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nodeagent/internal/test/need"
	"nodeagent/test/machine/guest/wire"
)

// Options say how a guest differs from the usual one: amd64 (or what
// NODEAGENT_MACHINE names), cgroup v2, one CPU, 2 GiB, from the snapshot. A second
// CPU costs two thirds more of the host's, most of it in waiting for each other.
type Options struct {
	Arch      string   // "amd64" or "arm64"
	Cmdline   []string // more kernel parameters: systemd.unified_cgroup_hierarchy=0
	Fresh     bool     // boot instead of loading the snapshot of a booted guest
	MemoryMiB int
	CPUs      int
	From      *State // start from what it makes of a guest, instead of the one just booted

	// Durable: what the guest has flushed is on the disk, and survives PowerCut.
	// Other guests run with a disk that forgets, which is faster.
	Durable bool

	blank bool // for a snapshot of every day: the programs, which change, are not in it
}

func (o Options) withDefaults() Options {
	if o.Arch == "" {
		o.Arch = os.Getenv("NODEAGENT_MACHINE")
	}
	if _, ok := machines[o.Arch]; !ok {
		o.Arch = "amd64"
	}
	if o.MemoryMiB == 0 {
		o.MemoryMiB = 2048
	}
	if o.CPUs == 0 {
		o.CPUs = 1
	}
	return o
}

// State is a guest as several tests of a run want it: the first to ask makes it,
// the others start from its snapshot.
type State struct {
	Name string // of a file; one State has one
	Make func(ctx context.Context, g *Guest) error
}

// Guest is one virtual machine.
type Guest struct {
	opts Options
	dir  *directory
	spec spec

	mu     sync.Mutex
	proc   *process // nil while its power is off
	boot   string
	cost   time.Duration // of processes that have ended
	bedded bool          // our programs and the tree are inside, until the next boot
}

// Start boots a guest on a throw-away overlay of the cached disk and returns when
// systemd has started everything. It ends with t; when t has failed, the end of
// its console and of its journal are shown. t is skipped where no machine bed
// is asked for: make test-machine sets NODEAGENT_MACHINE.
func Start(t testing.TB, o Options) *Guest {
	t.Helper()
	need.Have(t, need.Root, need.Machine)
	o = o.withDefaults()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute) // a disk may have to be built
	defer cancel()
	begin := time.Now()
	g, err := New(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(g.Report())
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		record(t, Result{Guest: g.name(), Package: t.Name(), Action: "cost", Seconds: g.cost.Seconds()})
	})
	t.Logf("guest %s %v up after %.1f s", o.Arch, o.Cmdline, time.Since(begin).Seconds())
	return g
}

// New is Start without a test. The caller must Close the guest.
func New(ctx context.Context, o Options) (*Guest, error) {
	o = o.withDefaults()
	d, err := Disk(ctx, o.Arch)
	if err != nil {
		return nil, err
	}
	if o.Fresh {
		return boot(ctx, d, o)
	}
	snap, err := booted(ctx, d, o)
	if err != nil {
		return nil, err
	}
	if o.From != nil {
		return stated(ctx, d, snap, o)
	}
	return resume(ctx, d, snap, o)
}

// make makes the guest's directory and its overlay of the disk at backing.
func makeGuest(ctx context.Context, d Image, backing drive, o Options) (*Guest, error) {
	dir, err := newDirectory()
	if err != nil {
		return nil, err
	}
	g := &Guest{opts: o, dir: dir, spec: spec{
		arch: o.Arch, dir: dir.path, kernel: d.Kernel, initrd: d.Initrd,
		cmdline: o.Cmdline, memory: o.MemoryMiB, cpus: o.CPUs,
	}}
	root := drive{path: filepath.Join(dir.path, "root.qcow2"), format: "qcow2", durable: o.Durable}
	err = overlay(ctx, root.path, backing)
	programs := drive{path: filepath.Join(dir.path, "payload"), format: "raw", name: "payload"}
	if o.blank {
		err = errors.Join(err, sparse(programs.path, payloadSize))
	} else if err == nil {
		programs.path, err = payload(ctx, o.Arch, dir.path)
	}
	g.spec.disks = []drive{root, programs}
	if err != nil {
		return nil, errors.Join(err, dir.remove())
	}
	return g, nil
}

func boot(ctx context.Context, d Image, o Options) (*Guest, error) {
	g, err := makeGuest(ctx, d, drive{path: d.Raw, format: "raw"}, o)
	if err != nil {
		return nil, err
	}
	if err := g.PowerOn(ctx); err != nil {
		return nil, g.abandon(err)
	}
	return g, nil
}

// abandon closes a guest that did not come up, and shows why.
func (g *Guest) abandon(err error) error {
	return errors.Join(fmt.Errorf("%w\n%s", err, tail(g.Console(), 60)), g.Close())
}

// Close ends the guest and removes its disk. It may be called twice.
func (g *Guest) Close() error {
	g.mu.Lock()
	p := g.proc
	g.proc = nil
	g.mu.Unlock()
	if p != nil {
		p.kill()
		g.ended(p)
	}
	return g.dir.remove()
}

// Arch is the guest's architecture in Go's words.
func (g *Guest) Arch() string { return g.opts.Arch }

func (g *Guest) channel() (*channel, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.proc == nil {
		return nil, errors.New("the guest has no power")
	}
	return g.proc.ch, nil
}

// Command is one run of a program in the guest, as root.
type Command struct {
	Argv   []string
	Env    []string // added to the guest's own
	Dir    string
	Stdin  io.Reader
	Output io.Writer // standard output and error, as they come
}

// Exec runs c and returns its exit code. When ctx ends it kills the command's
// process group. An error is not the command's: it could not run, or the guest
// went down.
func (g *Guest) Exec(ctx context.Context, c Command) (int, error) {
	ch, err := g.channel()
	if err != nil {
		return 0, err
	}
	if c.Output == nil {
		c.Output = io.Discard
	}
	end, err := ch.do(ctx, wire.Request{Argv: c.Argv, Env: c.Env, Dir: c.Dir}, c.Stdin, c.Output)
	if err == nil && end.Error != "" {
		err = errors.New(end.Error)
	}
	return end.Code, err
}

// Run runs a program and returns its standard output and error. The error of one
// that failed carries their end.
func (g *Guest) Run(ctx context.Context, argv ...string) (string, error) {
	var out bytes.Buffer
	code, err := g.Exec(ctx, Command{Argv: argv, Output: &out})
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d", code)
	}
	if err != nil {
		err = fmt.Errorf("run %q in the guest: %w\n%s", argv, err, tail(out.String(), 30))
	}
	return out.String(), err
}

// Shell runs a script with sh -e and returns its output.
func (g *Guest) Shell(ctx context.Context, script string) (string, error) {
	return g.Run(ctx, "/bin/sh", "-ec", script)
}

// Put copies a file, with its mode, into the guest in one step (a temporary name
// and a rename), and makes the directories above it.
func (g *Guest) Put(ctx context.Context, hostPath, guestPath string) error {
	f, err := os.Open(hostPath)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return g.put(ctx, f, info.Mode().Perm(), guestPath)
}

// Write writes a file in the guest.
func (g *Guest) Write(ctx context.Context, guestPath string, content []byte, mode os.FileMode) error {
	return g.put(ctx, bytes.NewReader(content), mode, guestPath)
}

func (g *Guest) put(ctx context.Context, r io.Reader, mode os.FileMode, guestPath string) error {
	ch, err := g.channel()
	if err != nil {
		return err
	}
	end, err := ch.do(ctx, wire.Request{Put: guestPath, Mode: uint32(mode)}, r, io.Discard)
	if err == nil && end.Error != "" {
		err = errors.New(end.Error)
	}
	if err != nil {
		return fmt.Errorf("put %s into the guest: %w", guestPath, err)
	}
	return nil
}

// Get reads a file of the guest.
func (g *Guest) Get(ctx context.Context, guestPath string) ([]byte, error) {
	ch, err := g.channel()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	end, err := ch.do(ctx, wire.Request{Get: guestPath}, nil, &out)
	if err == nil && end.Error != "" {
		err = errors.New(end.Error)
	}
	if err != nil {
		return nil, fmt.Errorf("get %s from the guest: %w", guestPath, err)
	}
	return out.Bytes(), nil
}

// Console is all that the guest has written to its serial console, over all of
// its boots since the snapshot.
func (g *Guest) Console() string {
	b, _ := os.ReadFile(filepath.Join(g.dir.path, "console"))
	return strings.ToValidUTF8(string(b), "?")
}

// Report is what tells why a guest failed: the ends of console and journal.
func (g *Guest) Report() string {
	said := "console:\n" + tail(g.Console(), 60)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	journal, err := g.Run(ctx, "journalctl", "-b", "-n", "60", "--no-pager", "-o", "short-monotonic")
	if err != nil {
		return fmt.Sprintf("%s\nno journal: %v", said, err)
	}
	return said + "\njournal:\n" + journal
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
