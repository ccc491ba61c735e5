package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// obeyLimit is far more than a process that obeys takes.
const obeyLimit = 20 * time.Second

type pod struct {
	id, netns string
	cgroup    string // below each hierarchy
	container containerd.Container
	task      containerd.Task
	exited    <-chan containerd.ExitStatus
}

func (f *floor) create(ctx context.Context, id string) (*pod, error) {
	p := &pod{id: id, netns: filepath.Join("/run/netns", id), cgroup: filepath.Join(f.cgroup, "pod"+id)}
	if err := newNetns(p.netns); err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	if err := veth(id, p.netns); err != nil {
		return nil, fmt.Errorf("give the pod an interface: %w", err)
	}
	var err error
	p.container, err = f.client.NewContainer(ctx, id,
		containerd.WithSnapshotter("overlayfs"),
		containerd.WithNewSnapshot(id, f.img),
		containerd.WithNewSpec(
			oci.WithProcessArgs(f.argv...),
			oci.WithCgroup(filepath.Join(p.cgroup, id)),
			oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: p.netns}),
			f.filtered,
		))
	if err != nil {
		return nil, err
	}
	if p.task, err = p.container.NewTask(ctx, cio.NullIO); err != nil {
		return nil, err
	}
	if p.exited, err = p.task.Wait(ctx); err != nil {
		return nil, err
	}
	return p, p.task.Start(ctx)
}

// obeys waits until the pod's process is no longer runc and catches SIGTERM: an
// init of a PID namespace that does not catch it is deaf to it, and the first
// milliseconds of a program do not. runc's own init does, and drops it.
func (p *pod) obeys(ctx context.Context) error {
	for {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.task.Pid()))
		if err != nil {
			return err
		}
		if bytes.HasPrefix(b, []byte("Name:\trunc:[")) {
			b = []byte("SigCgt:\t0\n")
		}
		_, rest, _ := strings.Cut(string(b), "SigCgt:\t")
		hex, _, _ := strings.Cut(rest, "\n")
		caught, err := strconv.ParseUint(hex, 16, 64)
		if err != nil {
			return fmt.Errorf("read the signals that pod %s catches: %w", p.id, err)
		}
		if caught&(1<<(syscall.SIGTERM-1)) != 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for pod %s to catch SIGTERM: %w", p.id, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

func (p *pod) delete(ctx context.Context) error {
	if err := p.task.Kill(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case s := <-p.exited:
		if s.Error() != nil {
			return s.Error()
		}
	case <-time.After(obeyLimit):
		return fmt.Errorf("pod %s did not end within %v of SIGTERM", p.id, obeyLimit)
	}
	if _, err := p.task.Delete(ctx); err != nil {
		return err
	}
	return p.container.Delete(ctx, containerd.WithSnapshotCleanup)
}

// cleanup removes what is not part of the measured way down.
func (p *pod) cleanup() error {
	// runc made the pod's cgroup on its way and leaves it.
	for _, at := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		left, err := filepath.Glob(filepath.Join(at, p.cgroup))
		if err != nil {
			return err
		}
		for _, dir := range left {
			if err := unix.Rmdir(dir); err != nil {
				return fmt.Errorf("remove cgroup %s: %w", dir, err)
			}
		}
	}
	if err := unix.Unmount(p.netns, unix.MNT_DETACH); err != nil {
		return err
	}
	return os.Remove(p.netns)
}

// newNetns makes a network namespace on a thread of its own, which ends with its
// goroutine, and pins it.
func newNetns(path string) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// The thread group leader would keep the namespace for ever.
			done <- newNetns(path)
			runtime.UnlockOSThread()
			return
		}
		done <- unshare(path)
	}()
	return <-done
}

func unshare(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
}

// veth makes a pair with one end in the pod.
func veth(id, netns string) error {
	f, err := os.Open(netns)
	if err != nil {
		return err
	}
	defer f.Close()
	name := "v" + id
	if len(name) > 15 {
		name = name[:15]
	}
	return netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name, MTU: 1500},
		PeerName:  "eth0", PeerNamespace: netlink.NsFd(f.Fd()),
	})
}

// filtered sets the profile that the daemon gives a container which asks for
// none. As there, x32 is left out, which kernels are built without.
func (f *floor) filtered(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
	if f.seccomp {
		s.Linux.Seccomp = seccomp.DefaultProfile(s)
		s.Linux.Seccomp.Architectures = slices.DeleteFunc(s.Linux.Seccomp.Architectures, func(a specs.Arch) bool { return a == specs.ArchX32 })
	}
	return nil
}
