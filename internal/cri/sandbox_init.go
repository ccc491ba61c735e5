package cri

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	apitypes "github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"nodeagent/internal/cri/spec"
	"nodeagent/internal/mkdir"
	"nodeagent/internal/pod"
)

const (
	initUser     = 65535 // as the pause container's
	initOOMScore = -998  // kubelet's for the sandbox: the pod goes before its init
)

// pidPin is where the PID namespace of a sandbox with shareProcessNamespace is
// pinned.
func (n *Native) pidPin(s *sandbox) string { return filepath.Join(n.nsDir(s.id), "pid") }

// startInit starts the process that holds the sandbox's PID namespace and reaps
// its orphans. It is a container of the pod's group without snapshot and image.
func (n *Native) startInit(ctx context.Context, s *sandbox) error {
	c := newContainer(newID(), s.id, s.uid)
	c.kind, c.boot, c.starting = kindInit, n.boot, true
	c.namespace, c.podName = s.config.GetMetadata().GetNamespace(), s.config.GetMetadata().GetName()
	c.cgroup = n.cgroupPath(s.config.GetLinux().GetCgroupParent(), c.id)
	root := filepath.Join(n.nsDir(s.id), "init")
	// The log is empty; by it the shim learns whose it is.
	c.info = pod.Container{ID: c.id, SandboxID: s.id, State: pod.ContainerCreated, Created: time.Now(), LogPath: filepath.Join(n.nsDir(s.id), "init.log")}
	c.mounts = []*apitypes.Mount{{Type: "bind", Source: root, Options: []string{"rbind", "ro"}}}
	n.state.addContainer(c)
	defer func() {
		n.state.renew(&c.seq)
		n.state.edit(func() { c.starting = false })
	}()
	if err := writeInitRoot(root); err != nil {
		return err
	}
	record, err := n.initRecord(s, c)
	if err != nil {
		return err
	}
	cctx, cancel := n.call(ctx)
	defer cancel()
	if _, err := n.client.ContainerService().Create(cctx, record); err != nil {
		return fmt.Errorf("write record of sandbox init: %w", err)
	}
	pid, err := n.startTask(ctx, s, c)
	if err != nil {
		return fmt.Errorf("start sandbox init: %w", err)
	}
	n.state.edit(func() { c.info.State, c.info.Pid, c.info.Started = pod.ContainerRunning, pid, time.Now() })
	if err := n.writeStarted(c, started{At: c.info.Started, Pid: pid}); err != nil {
		return err
	}
	return pinPID(pid, n.pidPin(s))
}

func pinPID(pid uint32, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("make pin of pid namespace: %w", err)
	}
	f.Close()
	if err := unix.Mount(fmt.Sprintf("/proc/%d/ns/pid", pid), path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin pid namespace: %w", err)
	}
	return nil
}

func writeInitRoot(root string) error {
	program, err := initProgram()
	if err != nil {
		return err
	}
	for _, dir := range []string{"proc", "dev"} {
		if err := mkdir.All(filepath.Join(root, dir), 0o755); err != nil {
			return fmt.Errorf("make root of sandbox init: %w", err)
		}
	}
	// It runs as a user who owns nothing here.
	path := filepath.Join(root, "init")
	if err := errors.Join(os.WriteFile(path, program, 0o755), os.Chmod(path, 0o755)); err != nil {
		return fmt.Errorf("write sandbox init: %w", err)
	}
	return nil
}

func (n *Native) initRecord(s *sandbox, c *container) (containers.Container, error) {
	var r containers.Container
	encoded, err := typeurl.MarshalAny(n.initSpec(s, c))
	if err != nil {
		return r, fmt.Errorf("encode spec of sandbox init: %w", err)
	}
	handler, err := n.handler(s.handler)
	if err != nil {
		return r, err
	}
	options, err := handler.options(n.cfg.SystemdCgroup)
	if err != nil {
		return r, err
	}
	c.runtime = handler.Runtime
	labels := podLabels(s.config.GetMetadata())
	maps.Copy(labels, map[string]string{
		labelKind: kindInit, labelSandbox: s.id, labelBoot: c.boot, labelCgroup: c.cgroup, labelLog: c.info.LogPath,
	})
	return containers.Container{
		ID: c.id, Labels: labels, Spec: encoded,
		Runtime: containers.RuntimeInfo{Name: handler.Runtime, Options: options},
	}, nil
}

// initSpec gives the init nothing that it does not need.
func (n *Native) initSpec(s *sandbox, c *container) *specs.Spec {
	p := n.pinsOf(s)
	score := max(initOOMScore, n.host.OOMScoreAdjMin)
	namespaces := []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}}
	for kind, path := range map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: p.net, specs.IPCNamespace: p.ipc, specs.UTSNamespace: p.uts} {
		if path != "" {
			namespaces = append(namespaces, specs.LinuxNamespace{Type: kind, Path: path})
		}
	}
	out := &specs.Spec{
		Version: spec.Version,
		Process: &specs.Process{
			Args: []string{"/init"}, Cwd: "/", NoNewPrivileges: true, OOMScoreAdj: &score,
			User: specs.User{UID: initUser, GID: initUser}, Capabilities: &specs.LinuxCapabilities{},
		},
		Root: &specs.Root{Path: "rootfs", Readonly: true},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			// runc makes the default devices whatever one asks for.
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "mode=755", "size=16k"}},
		},
		Annotations: map[string]string{spec.GroupAnnotation: s.id},
		Linux: &specs.Linux{
			Namespaces: namespaces, CgroupsPath: n.cgroupsPath(s.config.GetLinux().GetCgroupParent(), c.id),
			Resources:   &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			MaskedPaths: []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"}, ReadonlyPaths: []string{"/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	if n.host.Seccomp {
		out.Linux.Seccomp = seccomp.DefaultProfile(out)
	}
	return out
}

// stopInit ends the sandbox's init, with whatever is left in its PID namespace,
// and removes it.
func (n *Native) stopInit(ctx context.Context, s *sandbox) error {
	var inits []*container
	n.state.edit(func() {
		for _, c := range n.state.containers {
			if c.sandbox == s.id && c.kind == kindInit {
				inits = append(inits, c)
			}
		}
	})
	for _, c := range inits {
		if err := n.removeInit(ctx, c); err != nil {
			return fmt.Errorf("end sandbox init: %w", err)
		}
	}
	return nil
}

func (n *Native) removeInit(ctx context.Context, c *container) error {
	if err := n.StopContainer(ctx, c.id, 0); err != nil {
		return err
	}
	if err := c.lock.acquire(ctx); err != nil {
		return err
	}
	defer c.lock.release()
	n.state.edit(func() { c.removing = true })
	if err := n.deleteContainer(ctx, c); err != nil {
		n.state.edit(func() { c.removing = false })
		return err
	}
	n.state.removeContainer(c)
	return nil
}

// initEnded makes a sandbox whose init has ended unexpectedly not ready: every
// process in its PID namespace ended with it.
func (n *Native) initEnded(c *container) {
	s, err := n.state.sandbox(c.sandbox)
	if err != nil {
		return
	}
	lost := false
	n.state.edit(func() {
		if !s.stopping && s.visible && s.reason == "" {
			s.reason, lost = reasonIncomplete, true
		}
	})
	if lost {
		n.log.Warn("the init of a sandbox has ended", "sandbox", s.id, "podUID", s.uid)
		n.cfg.Wake(s.uid)
	}
}

// sweepInits removes inits whose sandbox is gone altogether.
func (n *Native) sweepInits(ctx context.Context) {
	var lost []*container
	n.state.edit(func() {
		for _, c := range n.state.containers {
			if c.kind == kindInit && !c.starting && n.state.sandboxes[c.sandbox] == nil {
				lost = append(lost, c)
			}
		}
	})
	for _, c := range lost {
		cctx, cancel := n.call(ctx)
		err := n.removeInit(cctx, c)
		cancel()
		if err != nil {
			n.log.Warn("cannot remove the init of a lost sandbox yet", "container", c.id, "podUID", c.uid, "err", err)
		}
	}
}
