package spec

import (
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// setMounts puts together the kernel's file systems, the pod's /dev/shm, the
// image's anonymous volumes and the config's mounts. One destination is mounted
// once: the config's mount wins over a volume, and both over a default.
func setMounts(in Input, s *specs.Spec) error {
	binds, err := bindMounts(in)
	if err != nil {
		return err
	}
	for _, m := range defaultMounts(in) {
		// Under a /dev of the config's own, ours have no place.
		if !mountsOver(binds, m.Destination) {
			s.Mounts = append(s.Mounts, m)
		}
	}
	for _, b := range binds {
		m, err := bind(in, b)
		if err != nil {
			return err
		}
		s.Mounts = append(s.Mounts, m)
	}
	s.Linux.RootfsPropagation = rootPropagation(binds)
	return nil
}

func mountsOver(binds []*runtimeapi.Mount, dst string) bool {
	return slices.ContainsFunc(binds, func(b *runtimeapi.Mount) bool {
		return b.ContainerPath == dst || b.ContainerPath == "/dev" && strings.HasPrefix(dst, "/dev/")
	})
}

func defaultMounts(in Input) []specs.Mount {
	access := "ro"
	if in.Container.GetLinux().GetSecurityContext().GetPrivileged() {
		access = "rw"
	}
	cgroup := []string{"nosuid", "noexec", "nodev", "relatime", access}
	if access == "rw" {
		// Without a cgroup namespace this is the host's super-block: a mount
		// that does not repeat its options strips them from it.
		cgroup = append(cgroup, in.Host.CgroupOptions...)
	}
	shm, shmOptions := in.ShmPath, []string{"rbind", "rprivate", "rw", "nosuid", "nodev", "noexec"}
	if shm == "" {
		// The host's processes may run code from theirs.
		shm, shmOptions = "/dev/shm", shmOptions[:5]
	}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", access}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: cgroup},
		{Destination: "/dev/shm", Type: "bind", Source: shm, Options: shmOptions},
	}
}

// bindMounts returns the config's mounts and the image's volumes with cleaned
// destinations, outer ones first, so that none hides another.
func bindMounts(in Input) ([]*runtimeapi.Mount, error) {
	var out []*runtimeapi.Mount
	seen := map[string]bool{}
	for _, m := range in.Container.GetMounts() {
		dst, err := destination(m.GetContainerPath())
		if err != nil {
			return nil, err
		}
		seen[dst] = true
		out = append(out, &runtimeapi.Mount{
			ContainerPath:     dst,
			HostPath:          m.GetHostPath(),
			Readonly:          m.GetReadonly(),
			RecursiveReadOnly: m.GetRecursiveReadOnly(),
			Propagation:       m.GetPropagation(),
			UidMappings:       m.GetUidMappings(),
			GidMappings:       m.GetGidMappings(),
			Image:             m.GetImage(),
		})
	}
	for _, v := range in.Volumes {
		dst, err := destination(v.ContainerPath)
		if err != nil {
			return nil, err
		}
		if !seen[dst] {
			out = append(out, &runtimeapi.Mount{ContainerPath: dst, HostPath: v.HostPath})
		}
	}
	slices.SortStableFunc(out, func(a, b *runtimeapi.Mount) int {
		return strings.Count(a.ContainerPath, "/") - strings.Count(b.ContainerPath, "/")
	})
	return out, nil
}

// procFiles are what may be mounted below /proc: runc's list (lxcfs views).
var procFiles = []string{
	"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat",
	"/proc/swaps", "/proc/uptime", "/proc/loadavg", "/proc/slabinfo",
	"/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
}

// destination cleans a mount's path in the container. A relative one is taken
// from the root, as kubelet does.
func destination(p string) (string, error) {
	dst := path.Clean("/" + p)
	switch {
	case p == "" || dst == "/" || strings.IndexByte(p, 0) >= 0:
		return "", refuse("mount path %q in the container is not valid", p)
	case slices.Contains(strings.Split(p, "/"), ".."):
		return "", refuse("mount path %q in the container holds ..", p)
	case strings.HasPrefix(dst, "/proc/") && !slices.Contains(procFiles, dst):
		return "", refuse("mount path %q lies inside /proc, where the OCI runtime allows no mount", p)
	}
	return dst, nil
}

func bind(in Input, m *runtimeapi.Mount) (specs.Mount, error) {
	options := []string{"rbind"}
	switch {
	case m.GetImage() != nil:
		return specs.Mount{}, refuse("mount %q: image volumes are not supported", m.ContainerPath)
	case len(m.UidMappings)+len(m.GidMappings) > 0:
		return specs.Mount{}, refuse("mount %q: id-mapped mounts are not supported", m.ContainerPath)
	case !path.IsAbs(m.HostPath) || strings.IndexByte(m.HostPath, 0) >= 0:
		return specs.Mount{}, refuse("mount %q: host path %q is not absolute", m.ContainerPath, m.HostPath)
	}
	switch m.Propagation {
	case runtimeapi.MountPropagation_PROPAGATION_PRIVATE:
		options = append(options, "rprivate")
	case runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
		options = append(options, "rslave")
	case runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:
		if !in.Container.GetLinux().GetSecurityContext().GetPrivileged() {
			return specs.Mount{}, refuse("mount %q: Bidirectional propagation needs a privileged container", m.ContainerPath)
		}
		options = append(options, "rshared")
	default:
		return specs.Mount{}, refuse("mount %q: propagation %d is unknown", m.ContainerPath, m.Propagation)
	}
	switch {
	case m.RecursiveReadOnly && !m.Readonly:
		return specs.Mount{}, refuse("mount %q: recursive read-only, but not read-only", m.ContainerPath)
	case m.RecursiveReadOnly && m.Propagation != runtimeapi.MountPropagation_PROPAGATION_PRIVATE:
		return specs.Mount{}, refuse("mount %q: recursive read-only needs propagation None", m.ContainerPath)
	case m.RecursiveReadOnly && !in.RecursiveReadOnly:
		return specs.Mount{}, refuse("mount %q: the OCI runtime has no recursive read-only mounts", m.ContainerPath)
	case m.RecursiveReadOnly:
		options = append(options, "rro")
	case m.Readonly:
		options = append(options, "ro")
	default:
		options = append(options, "rw")
	}
	return specs.Mount{Destination: m.ContainerPath, Type: "bind", Source: m.HostPath, Options: options}, nil
}

// rootPropagation is the root's: what passes into, or out of, any mount must
// pass the root first. "" is runc's default, private.
func rootPropagation(binds []*runtimeapi.Mount) string {
	p := ""
	for _, b := range binds {
		switch b.Propagation {
		case runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:
			return "rshared"
		case runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
			p = "rslave"
		}
	}
	return p
}
