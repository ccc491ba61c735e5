package cri

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/cri/image"
	"nodeagent/internal/cri/spec"
	"nodeagent/internal/pod"
)

// buildSpec gathers what the spec of c depends on, and builds it.
func (n *Native) buildSpec(ctx context.Context, s *sandbox, c *container, config *runtimeapi.ContainerConfig, sandboxConfig *runtimeapi.PodSandboxConfig, img image.Image) (*specs.Spec, error) {
	in := spec.Input{
		ContainerID: c.id, Sandbox: sandboxConfig, Container: config, Image: img.Config, Host: n.host, Group: s.id,
		CgroupsPath: n.cgroupsPath(s.config.GetLinux().GetCgroupParent(), c.id),
	}
	var err error
	if in.Namespaces, in.ShmPath, err = n.namespacePaths(s, config); err != nil {
		return nil, err
	}
	if in.User, err = n.user(ctx, s, config, img); err != nil {
		return nil, err
	}
	if err := n.hostParts(ctx, &in); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(config.GetMounts(), (*runtimeapi.Mount).GetRecursiveReadOnly) {
		in.RecursiveReadOnly = n.RecursiveReadOnly(ctx, s.handler)
	}
	if in.Volumes, err = n.imageVolumes(ctx, c, config, img); err != nil {
		return nil, err
	}
	built, err := spec.Build(in)
	if err != nil {
		return nil, fmt.Errorf("build container spec: %w", err)
	}
	return built, nil
}

// namespacePaths are those of the sandbox, and the PID namespace that the
// container asks for.
func (n *Native) namespacePaths(s *sandbox, config *runtimeapi.ContainerConfig) (spec.Namespaces, string, error) {
	p := n.pinsOf(s)
	ns := spec.Namespaces{Net: p.net, IPC: p.ipc, UTS: p.uts}
	o := config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	switch o.GetPid() {
	case runtimeapi.NamespaceMode_NODE:
		ns.PID = spec.PIDHost
	case runtimeapi.NamespaceMode_TARGET:
		target, err := n.state.container(o.GetTargetId())
		if err != nil {
			return ns, "", fmt.Errorf("find target of PID namespace: %w", err)
		}
		var pid uint32
		n.state.edit(func() { pid = target.info.Pid })
		if target.sandbox != s.id {
			return ns, "", fmt.Errorf("find target of PID namespace: container %s is of another sandbox", target.id)
		}
		if !member(int(pid), target.id) { // its number may be another's by now
			return ns, "", fmt.Errorf("find target of PID namespace: %w", errNotRunning)
		}
		ns.PID, ns.PIDPath = spec.PIDJoin, fmt.Sprintf("/proc/%d/ns/pid", pid)
	case runtimeapi.NamespaceMode_POD:
		if namespacesOf(s.config).sharePID() {
			ns.PID, ns.PIDPath = spec.PIDJoin, n.pidPin(s)
		}
	}
	return ns, p.shm, nil
}

func (n *Native) hostParts(ctx context.Context, in *spec.Input) (err error) {
	security := in.Container.GetLinux().GetSecurityContext()
	if p := security.GetSeccomp(); p.GetProfileType() == runtimeapi.SecurityProfile_Localhost && !security.GetPrivileged() {
		if in.LocalhostProfile, err = spec.LoadSeccomp(n.cfg.SeccompDir, p.GetLocalhostRef()); err != nil {
			return fmt.Errorf("load seccomp profile: %w", err)
		}
	}
	actx, cancel := n.call(ctx)
	defer cancel()
	if in.AppArmorProfile, err = n.armor.profileOf(actx, security); err != nil {
		return err
	}
	if security.GetPrivileged() {
		if in.HostDevices, err = spec.HostDevices(); err != nil {
			return err
		}
	}
	if in.Devices, err = spec.Devices(in.Container.GetDevices()); err != nil {
		return err
	}
	return spec.CheckPropagation(in.Container.GetMounts())
}

func (n *Native) user(ctx context.Context, s *sandbox, config *runtimeapi.ContainerConfig, img image.Image) (specs.User, error) {
	accounts, err := n.accountsOf(ctx, img)
	if err != nil {
		return specs.User{}, err
	}
	meta := s.config.GetMetadata()
	user, err := spec.ResolveUser(spec.UserRequest{
		ImageUser: img.Config.User, Security: config.GetLinux().GetSecurityContext(), Accounts: accounts,
		NonRoot: config.GetAnnotations()[pod.AnnotationNonRoot] == "true",
		Pod:     fmt.Sprintf("%s_%s(%s)", meta.GetName(), meta.GetNamespace(), meta.GetUid()),
		Name:    config.GetMetadata().GetName(),
	})
	if err != nil {
		return user, fmt.Errorf("resolve user: %w", err)
	}
	return user, nil
}

// accountsCache keeps what was read out of images' root file systems. Layers
// never change, so an entry is good for ever; the bound is for the memory.
type accountsCache struct {
	mu      sync.Mutex
	entries map[string]spec.Accounts // by chain id
	size    int                      // bytes
}

const accountsMax = 1 << 20 // bytes of all entries together

func newAccountsCache() *accountsCache { return &accountsCache{entries: map[string]spec.Accounts{}} }

func (a *accountsCache) get(chain string) (spec.Accounts, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e, ok := a.entries[chain]
	return e, ok
}

func (a *accountsCache) put(chain string, e spec.Accounts) {
	a.mu.Lock()
	defer a.mu.Unlock()
	size := len(e.Passwd) + len(e.Group) + len(chain)
	if a.size+size > accountsMax {
		clear(a.entries)
		a.size = 0
	}
	a.entries[chain] = e
	a.size += size
}

// accountsOf reads the image's accounts, once for each root file system, and
// refuses one that the runtime could not mount safely.
func (n *Native) accountsOf(ctx context.Context, img image.Image) (accounts spec.Accounts, err error) {
	chain := img.ChainID.String()
	if e, ok := n.accounts.get(chain); ok {
		return e, nil
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.CreateTimeout)
	defer cancel()
	err = n.images.Rootfs(ctx, img, func(dir string) error {
		if err := spec.CheckRootfs(dir); err != nil {
			return err
		}
		accounts, err = spec.ReadAccounts(dir)
		return err
	})
	if err != nil {
		return accounts, fmt.Errorf("look into image: %w", err)
	}
	n.accounts.put(chain, accounts)
	return accounts, nil
}

// imageVolumes makes a directory for each VOLUME of the image that no mount
// covers; they go with the container.
func (n *Native) imageVolumes(ctx context.Context, c *container, config *runtimeapi.ContainerConfig, img image.Image) ([]spec.Volume, error) {
	paths, err := spec.ImageVolumes(img.Config, config.GetMounts())
	if err != nil || len(paths) == 0 {
		return nil, err
	}
	var out []spec.Volume
	for i, path := range paths {
		out = append(out, spec.Volume{HostPath: filepath.Join(n.volumeDir(c.id), fmt.Sprint(i)), ContainerPath: path})
	}
	if err := n.fillVolumes(ctx, out, img); err != nil {
		return nil, fmt.Errorf("make volumes of image: %w", err)
	}
	return out, nil
}
