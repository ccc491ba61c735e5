package bed

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"

	"nodeagent/internal/test/need"
	"nodeagent/test/image"
)

// Namespace is the containerd namespace in which the daemon works.
const Namespace = "k8s.io"

// startLimit bounds one start of containerd; usual is a third of a second.
const startLimit = 60 * time.Second

// Containerd makes a bed for a test, which ends with it. When the test has
// failed, the end of containerd's log is shown.
func Containerd(t testing.TB, o Options) *Bed {
	t.Helper()
	need.Have(t, need.Root)
	b, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.raced(t)
		if t.Failed() {
			t.Log(tail(b.ContainerdLog(), 60))
		}
		if err := b.Close(); err != nil {
			t.Errorf("remove the bed: %v", err)
		}
	})
	return b
}

// Address is the path of containerd's socket.
func (b *Bed) Address() string { return filepath.Join(b.dir, "k", "c.sock") }

// ContainerdLog is the path of containerd's log.
func (b *Bed) ContainerdLog() string { return filepath.Join(b.dir, "containerd.log") }

// Client returns a client of the bed's containerd in the daemon's namespace. A
// test's client is closed with the test.
func (b *Bed) Client(t testing.TB) *containerd.Client {
	t.Helper()
	c, err := b.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Dial is Client for callers that are no test.
func (b *Bed) Dial() (*containerd.Client, error) {
	return containerd.New(b.Address(), containerd.WithDefaultNamespace(Namespace), containerd.WithTimeout(10*time.Second))
}

func (b *Bed) startContainerd(ctx context.Context) error {
	config := filepath.Join(b.dir, "containerd.toml")
	if err := os.WriteFile(config, []byte(b.containerdConfig()), 0o644); err != nil {
		return err
	}
	argv := []string{filepath.Join(b.tools, "containerd"), "--config", config}
	if b.opts.NoFile != "" {
		argv = append([]string{"prlimit", "--nofile=" + b.opts.NoFile}, argv...) // it keeps the process id
	}
	p, err := b.Spawn("containerd", b.ContainerdLog(), nil, argv...)
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.containerd = p
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	return p.WaitReady(ctx)
}

func (b *Bed) containerdConfig() string {
	state := cmp.Or(b.opts.State, filepath.Join(b.data, "state"))
	cri, more := `"io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",`, ""
	if b.opts.CRI {
		cri, more = "", b.criConfig()
	}
	return fmt.Sprintf(`version = 3
root = %q
state = %q
imports = []
disabled_plugins = [
  %s
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = %q
[ttrpc]
address = %q
[plugins.'io.containerd.shim.v1.manager']
socket_dir = %q
[plugins.'io.containerd.transfer.v1.local']
config_path = %q
%s
%s
`, filepath.Join(b.data, "root"), state, cri, b.Address(), b.Address()+".ttrpc",
		filepath.Join(b.dir, "k"), filepath.Join(b.dir, "certs.d"), more, b.opts.Containerd)
}

// criConfig has CRI take what the machine gives: Debian's CNI plugins, a sandbox
// image that no registry need be asked for, and no right to lower an
// oom_score_adj.
func (b *Bed) criConfig() string {
	return fmt.Sprintf(`[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = %q
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = %q
`, b.CNIConfig(), image.Example)
}

// CNIConfig is the directory where the CRI plugin looks for a network.
func (b *Bed) CNIConfig() string { return filepath.Join(b.data, "cni") }

// ContainerdProcess is the containerd that runs now, or the one that ran last.
func (b *Bed) ContainerdProcess() *Process {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.containerd
}

// Kill ends containerd by SIGKILL; shims and containers stay.
func (b *Bed) Kill() error { return b.ContainerdProcess().Kill() }

// Stop freezes containerd by SIGSTOP: it hangs for all its clients.
func (b *Bed) Stop() error { return b.ContainerdProcess().Signal(unix.SIGSTOP) }

// Cont lets a stopped containerd go on.
func (b *Bed) Cont() error { return b.ContainerdProcess().Signal(unix.SIGCONT) }

// Restart kills containerd if it lives, and starts it again.
func (b *Bed) Restart(ctx context.Context) error {
	if err := b.Kill(); err != nil {
		return err
	}
	return b.startContainerd(ctx)
}

// StartAgain starts a killed containerd.
func (b *Bed) StartAgain(ctx context.Context) error { return b.startContainerd(ctx) }
