package bed

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Options say how a bed differs from the usual one. The zero value is the usual.
type Options struct {
	// Data is where everything but sockets is kept; default: a new directory
	// below /tmp. It is removed with the bed.
	Data string
	// State is containerd's state directory, which must exist and is its owner's
	// to remove; default: one below Data. A node has it on the tmpfs of /run.
	State string
	// Variant is how our own programs are built.
	Variant Variant
	// Stock leaves our shim out of the PATH, and unbuilt.
	Stock bool
	// Private gives the bed a mount namespace of its own with an empty
	// /run/netns and /run/containerd, so that every mount and every pin that
	// appears there is the bed's. Only the bed's own processes see them: a test
	// that makes namespaces in its own process cannot use it.
	Private bool
	// Path comes before everything else in PATH: a place for a runc that hangs.
	Path string
	// NoFile is the RLIMIT_NOFILE, SOFT:HARD, that containerd is started with, as
	// its unit would give it; default: its owner's.
	NoFile string
	// CRI leaves containerd's CRI plugin on, which nodeagent has no use for and
	// kubelet cannot be without. Its pods' sandboxes run image.Example.
	CRI bool
	// Containerd is added to containerd's configuration (TOML tables).
	Containerd string
	// Talk is told what takes long; default: nobody.
	Talk io.Writer
}

// Bed is a private node: a containerd in a network namespace without an uplink,
// below a cgroup of its own.
type Bed struct {
	opts   Options
	id     string
	dir    string // /tmp/nab/<id>: short, for sockets
	data   string // what dir is, links resolved
	system string // cgroup directory of the daemons
	tools  string
	own    string // directory of our shim
	thread *thread
	serial atomic.Int64

	spawned sync.WaitGroup // goroutines that end with the processes of Spawn

	reaper     *exec.Cmd
	reaperPipe io.WriteCloser

	mu         sync.Mutex
	containerd *Process
	closed     bool
}

// Start makes a bed and starts its containerd. The caller must Close it. Beds
// whose owners have died are swept first.
func Start(ctx context.Context, o Options) (*Bed, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("start a bed: namespaces, cgroups and mounts need root")
	}
	b := &Bed{opts: o, id: strings.ToLower(rand.Text()[:6])}
	var err error
	if b.tools, err = Tools(ctx, o.Talk); err != nil {
		return nil, err
	}
	if !o.Stock {
		if b.own, err = Built(ctx, shimName, Variant{Failpoints: o.Variant.Failpoints}); err != nil {
			return nil, err
		}
	}
	reaper, err := Built(ctx, reaperName, Variant{})
	if err != nil {
		return nil, err
	}
	if err := sweepDead(); err != nil && o.Talk != nil {
		// Somebody else's bed is no reason not to make this one.
		fmt.Fprintf(o.Talk, "sweep what an earlier bed left: %v\n", err)
	}
	if err := b.make(reaper); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	if err := b.startContainerd(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// make makes directories, reaper, cgroup and namespace, in the order in which
// each is already covered when the next one comes.
func (b *Bed) make(reaper string) error {
	if err := os.MkdirAll(home, 0o755); err != nil {
		return err
	}
	b.dir = filepath.Join(home, b.id)
	if b.opts.Data == "" {
		if err := os.Mkdir(b.dir, 0o755); err != nil {
			return err
		}
	} else {
		abs, err := filepath.Abs(b.opts.Data)
		if err != nil {
			return err
		}
		if err := dropStale(abs); err != nil {
			return err
		}
		if err := os.MkdirAll(abs, 0o755); err != nil {
			return err
		}
		if err := os.Symlink(abs, b.dir); err != nil {
			return err
		}
	}
	var err error
	if b.data, err = filepath.EvalSymlinks(b.dir); err != nil {
		return err
	}
	me, err := owner(os.Getpid())
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.dir, "owner"), []byte(me), 0o600); err != nil {
		return err
	}
	for _, d := range []string{"k", "root", "state", "tmp"} {
		if err := os.Mkdir(filepath.Join(b.dir, d), 0o711); err != nil {
			return err
		}
	}
	if err := b.startReaper(reaper); err != nil {
		return err
	}
	if b.system, err = makeCgroup(cgroupName(b.id)); err != nil {
		return err
	}
	b.thread, err = newThread(b.enter)
	return err
}

// dropStale removes what a dead bed left in dir when /tmp, where sweepDead looks
// for it, was emptied since. A directory that is no bed's is nobody's to remove.
func dropStale(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		return ignoreNotExist(err, dir)
	}
	mark, err := os.ReadFile(filepath.Join(dir, "owner"))
	if err != nil {
		return fmt.Errorf("%s is neither empty nor of an earlier run: remove it or choose another", dir)
	}
	var pid int
	fmt.Sscan(string(mark), &pid)
	if now, err := owner(pid); err == nil && now == string(mark) {
		return fmt.Errorf("%s is in use by process %d", dir, pid)
	}
	if m := mountedBelow(dir); m != "" {
		return fmt.Errorf("remove %s: %s is still mounted", dir, m)
	}
	return os.RemoveAll(dir)
}

// enter moves the bed's thread into the bed's namespaces.
func (b *Bed) enter() error {
	if b.opts.Private {
		if err := newMountNS(); err != nil {
			return err
		}
	}
	return newNetns()
}

func (b *Bed) startReaper(path string) error {
	cmd := exec.Command(filepath.Join(path, reaperName), b.id)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the bed's reaper: %w", err)
	}
	b.reaper, b.reaperPipe = cmd, pipe
	return nil
}

// Close ends every process of the bed and removes everything that was made in
// it. It may be called twice.
func (b *Bed) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	b.mu.Unlock()
	if b.thread != nil {
		b.thread.close() // its end is the end of a private bed's mounts
	}
	err := Sweep(b.id)
	if err == nil {
		b.spawned.Wait() // they are dead, and those who wait for them are to end with the test
	}
	if b.reaper != nil {
		if err == nil {
			_, _ = io.WriteString(b.reaperPipe, "closed")
		}
		b.reaperPipe.Close() // after a failed sweep the reaper tries once more
		_ = b.reaper.Wait()
	}
	return err
}

// ID names the bed; its cgroup is /nodeagent-bed-<ID>.
func (b *Bed) ID() string { return b.id }

// Dir is the bed's short directory, for sockets and everything else of a test.
func (b *Bed) Dir() string { return b.dir }

// CgroupRoot is the cgroup below which everything of the bed lives, as the
// daemon's cgroupRoot wants it. systemd's driver makes a slice of that name, and
// pods live there.
func (b *Bed) CgroupRoot() string { return "/" + cgroupName(b.id) }

// Netns is the path of the bed's network namespace while the bed is open.
func (b *Bed) Netns() string {
	return fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), b.thread.tid)
}

// Do runs f on a thread inside the bed's network namespace. f must return its
// error: t.Fatal in it would end the namespace's thread and all its processes.
func (b *Bed) Do(f func() error) error { return b.thread.do(f) }

// Tools is the directory of containerd, ctr, runc and containerd's own shim.
func (b *Bed) Tools() string { return b.tools }

// Env is the environment of processes in the bed: a PATH with our shim first.
func (b *Bed) Env() []string {
	path := strings.Join([]string{b.tools, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, ":")
	if b.own != "" {
		path = b.own + ":" + path
	}
	if b.opts.Path != "" {
		path = b.opts.Path + ":" + path
	}
	return []string{"PATH=" + path, "HOME=/root", "LANG=C.UTF-8", "TMPDIR=" + filepath.Join(b.dir, "tmp"), b.raceEnv()}
}

// Run runs a program to its end inside the bed and returns its output.
func (b *Bed) Run(ctx context.Context, argv ...string) (string, error) {
	path := argv[0]
	if !strings.Contains(path, "/") {
		path = b.look(path)
	}
	cmd := exec.Command(path, argv[1:]...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	if err := b.Start(cmd); err != nil {
		return "", fmt.Errorf("start %s: %w", argv[0], err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("run %s: %w\n%s", strings.Join(argv, " "), err, out.String())
	}
	return out.String(), nil
}

// look finds a program in the bed's PATH.
func (b *Bed) look(name string) string {
	path, _ := strings.CutPrefix(b.Env()[0], "PATH=")
	for dir := range strings.SplitSeq(path, ":") {
		p := filepath.Join(dir, name)
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return p
		}
	}
	return name
}
