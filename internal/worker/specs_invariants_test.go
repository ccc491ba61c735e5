package worker

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/cri/spec"
)

// broken tells which invariant a container's spec breaks, "" for none. It reads
// the pod itself and shares no code with what it judges.
func (m *maker) broken(c *corev1.Container, in spec.Input, s *specs.Spec) string {
	sc, psc := c.SecurityContext, m.pod.Spec.SecurityContext
	if sc == nil {
		sc = &corev1.SecurityContext{}
	}
	if psc == nil {
		psc = &corev1.PodSecurityContext{}
	}
	privileged := yes(sc.Privileged)
	for _, check := range []func() string{
		func() string { return m.processBroken(c, sc, s) },
		func() string { return capsBroken(sc, s.Process.Capabilities) },
		func() string { return userBroken(sc, psc, s.Process.User) },
		func() string { return m.seccompBroken(sc, psc, s) },
		func() string { return m.appArmorBroken(sc, psc) },
		func() string { return m.namespacesBroken(privileged, s) },
		func() string { return m.mountsBroken(privileged, in, s) },
		func() string { return m.limitsBroken(c, privileged, in, s) },
		func() string { return m.labelsBroken(c) },
	} {
		if why := check(); why != "" {
			return why
		}
	}
	return ""
}

func yes(b *bool) bool { return b != nil && *b }

func (m *maker) processBroken(c *corev1.Container, sc *corev1.SecurityContext, s *specs.Spec) string {
	p := s.Process
	seen := map[string]bool{}
	for _, kv := range p.Env {
		name, _, ok := strings.Cut(kv, "=")
		if !ok || name == "" || seen[name] || strings.ContainsRune(kv, 0) {
			return "variable " + name + " is none, or twice there"
		}
		seen[name] = true
	}
	switch {
	case p.NoNewPrivileges != (sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation):
		return "no_new_privs is not what allowPrivilegeEscalation says"
	case s.Root.Readonly != yes(sc.ReadOnlyRootFilesystem):
		return "the root is read-only, or is not, against the word"
	case p.Terminal != c.TTY:
		return "terminal"
	case len(c.Command) > 0 && len(p.Args) != len(c.Command)+len(c.Args):
		return "the image's command is mixed with the container's"
	case len(p.Args) == 0 || p.Args[0] == "":
		return "no command"
	case !path.IsAbs(p.Cwd) || p.Cwd != path.Clean(p.Cwd) || strings.HasPrefix(p.Cwd+"/", "/proc/"):
		return "working directory " + p.Cwd
	case p.Rlimits != nil || s.Hooks != nil || len(s.Linux.Sysctl) > 0 || s.Hostname != "":
		return "limits, hooks, sysctls or a hostname"
	case !maps.Equal(s.Annotations, map[string]string{"io.containerd.runc.v2.group": "s1"}):
		return "annotations"
	case p.OOMScoreAdj == nil || *p.OOMScoreAdj < max(-997, m.host.OOMScoreAdjMin) || *p.OOMScoreAdj > 1000:
		return "oom_score_adj"
	}
	return ""
}

var usualCaps = strings.Fields("CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE")

func capsBroken(sc *corev1.SecurityContext, has *specs.LinuxCapabilities) string {
	if len(has.Inheritable)+len(has.Ambient) > 0 || !slices.Equal(has.Bounding, has.Permitted) || !slices.Equal(has.Bounding, has.Effective) {
		return "sets of capabilities differ, or are inherited"
	}
	if yes(sc.Privileged) {
		return ""
	}
	asked := sc.Capabilities
	if asked == nil {
		asked = &corev1.Capabilities{}
	}
	names := func(list []corev1.Capability) (out []string) {
		for _, c := range list {
			out = append(out, strings.TrimPrefix(strings.ToUpper(string(c)), "CAP_"))
		}
		return out
	}
	add, drop := names(asked.Add), names(asked.Drop)
	for _, full := range has.Bounding {
		c := strings.TrimPrefix(full, "CAP_")
		byDefault := slices.Contains(usualCaps, c) && !slices.Contains(drop, "ALL")
		byAll := slices.Contains(add, "ALL") && !slices.Contains(drop, "ALL")
		if slices.Contains(drop, c) || !byDefault && !byAll && !slices.Contains(add, c) {
			return "capability " + c
		}
	}
	return ""
}

func userBroken(sc *corev1.SecurityContext, psc *corev1.PodSecurityContext, u specs.User) string {
	uid, gid, nonRoot := psc.RunAsUser, psc.RunAsGroup, psc.RunAsNonRoot
	if sc.RunAsUser != nil {
		uid = sc.RunAsUser
	}
	if sc.RunAsGroup != nil {
		gid = sc.RunAsGroup
	}
	if sc.RunAsNonRoot != nil {
		nonRoot = sc.RunAsNonRoot
	}
	want := slices.Clone(psc.SupplementalGroups)
	if psc.FSGroup != nil {
		want = append(want, *psc.FSGroup)
	}
	want = append(want, int64(u.GID))
	for _, g := range want {
		if !slices.Contains(u.AdditionalGids, uint32(g)) {
			return "a group is missing"
		}
	}
	strict := psc.SupplementalGroupsPolicy != nil && *psc.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict
	for _, g := range u.AdditionalGids {
		if strict && !slices.Contains(want, int64(g)) || g > 1<<31-1 {
			return "a group that nobody asked for"
		}
	}
	switch {
	case uid != nil && int64(u.UID) != *uid, gid != nil && int64(u.GID) != *gid:
		return "another user or group than asked for"
	case yes(nonRoot) && u.UID == 0:
		return "root, against runAsNonRoot"
	case u.UID > 1<<31-1 || u.GID > 1<<31-1:
		return "a user or group out of range"
	case uid == nil && u.UID == 0 && u.Username != "":
		return "a name that is root"
	}
	return ""
}

func (m *maker) seccompBroken(sc *corev1.SecurityContext, psc *corev1.PodSecurityContext, s *specs.Spec) string {
	profile := psc.SeccompProfile
	if sc.SeccompProfile != nil {
		profile = sc.SeccompProfile
	}
	free := yes(sc.Privileged) || profile == nil && m.set.cfg.Node.Unconfined || profile != nil && profile.Type == corev1.SeccompProfileTypeUnconfined
	if free != (s.Linux.Seccomp == nil) {
		return "seccomp"
	}
	if s.Linux.Seccomp != nil && s.Linux.Seccomp.DefaultAction != specs.ActErrno {
		return "a seccomp profile that filters nothing"
	}
	return ""
}

// appArmorBroken: the runtime is told which profile the pod asks for, and nothing
// where it asks for none.
func (m *maker) appArmorBroken(sc *corev1.SecurityContext, psc *corev1.PodSecurityContext) string {
	want, got := psc.AppArmorProfile, m.config.Linux.SecurityContext.Apparmor
	if sc.AppArmorProfile != nil {
		want = sc.AppArmorProfile
	}
	switch {
	case want == nil && got == nil:
		return ""
	case want == nil || got == nil || string(want.Type) != got.ProfileType.String():
		return "AppArmor"
	case want.LocalhostProfile != nil && *want.LocalhostProfile != got.LocalhostRef, want.LocalhostProfile == nil && got.LocalhostRef != "":
		return "the name of an AppArmor profile"
	}
	return ""
}

func (m *maker) namespacesBroken(privileged bool, s *specs.Spec) string {
	have := map[specs.LinuxNamespaceType]string{}
	for _, n := range s.Linux.Namespaces {
		have[n.Type] = n.Path
	}
	spec := &m.pod.Spec
	_, mount := have[specs.MountNamespace]
	pid, ownPID := have[specs.PIDNamespace]
	_, cgroup := have[specs.CgroupNamespace]
	switch {
	case !mount || have[specs.MountNamespace] != "":
		return "no mount namespace"
	case (have[specs.NetworkNamespace] == "") != spec.HostNetwork, (have[specs.UTSNamespace] == "") != spec.HostNetwork:
		return "network"
	case (have[specs.IPCNamespace] == "") != spec.HostIPC:
		return "IPC"
	case ownPID == spec.HostPID || (pid != "") != yes(spec.ShareProcessNamespace):
		return "processes"
	case cgroup != (m.host.CgroupV2 && !privileged):
		return "cgroup namespace"
	}
	return ""
}

func (m *maker) mountsBroken(privileged bool, in spec.Input, s *specs.Spec) string {
	for _, at := range s.Mounts {
		ro := slices.Contains(at.Options, "ro") || slices.Contains(at.Options, "rro")
		ours := strings.HasPrefix(at.Source, nodeFile) || strings.HasPrefix(at.Source, "/vol/") || at.Source == in.ShmPath || at.Source == "/dev/shm" && m.pod.Spec.HostIPC
		switch {
		case !path.IsAbs(at.Destination) || at.Destination != path.Clean(at.Destination) || at.Destination == "/":
			return "mount at " + at.Destination
		case at.Type == "bind" && !ours:
			return "a bind of " + at.Source
		case (at.Type == "sysfs" || at.Type == "cgroup") && !ro && !privileged:
			return at.Type + " is writable"
		case slices.Contains(at.Options, "rshared") || slices.Contains(at.Options, "shared"):
			return "mounts that leak to the host"
		}
	}
	if privileged {
		return ""
	}
	// Kubelet's lists, copied here once more on purpose.
	for _, p := range strings.Fields("/proc/asound /proc/acpi /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats /proc/sched_debug /proc/scsi /sys/firmware /sys/devices/virtual/powercap") {
		if !slices.Contains(s.Linux.MaskedPaths, p) {
			return p + " is not masked"
		}
	}
	for _, p := range strings.Fields("/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger") {
		if !slices.Contains(s.Linux.ReadonlyPaths, p) {
			return p + " is not read-only"
		}
	}
	return ""
}

func (m *maker) limitsBroken(c *corev1.Container, privileged bool, in spec.Input, s *specs.Spec) string {
	r := s.Linux.Resources
	limit := c.Resources.Limits.Memory().Value()
	switch {
	case !strings.HasPrefix(s.Linux.CgroupsPath, in.Sandbox.Linux.CgroupParent+"/") || !strings.Contains(s.Linux.CgroupsPath, "/pod"+string(m.pod.UID)+"/"):
		return "a cgroup that is not below the pod's"
	case m.host.CgroupV2 && r.CPU.Shares != nil || !m.host.CgroupV2 && len(r.Unified) > 0:
		return "limits of another cgroup version"
	case (limit != 0) != (r.Memory.Limit != nil) || limit != 0 && *r.Memory.Limit != limit:
		return "the memory limit"
	case limit != 0 && m.host.Swap && (r.Memory.Swap == nil || *r.Memory.Swap != limit):
		return "swap on top of a limit"
	case !privileged && (len(s.Linux.Devices) > 0 || len(r.Devices) == 0 || r.Devices[0].Allow):
		return "devices"
	}
	return ""
}

// labelsBroken: nothing that a pod's author names goes into a record of
// containerd, where a label may be an order; and the two annotations of ours say
// what the fields do.
func (m *maker) labelsBroken(c *corev1.Container) string {
	nonRoot := m.pod.Spec.SecurityContext != nil && yes(m.pod.Spec.SecurityContext.RunAsNonRoot)
	if c.SecurityContext != nil && c.SecurityContext.RunAsNonRoot != nil {
		nonRoot = *c.SecurityContext.RunAsNonRoot
	}
	hook := c.Lifecycle != nil && c.Lifecycle.PostStart != nil
	if !maps.Equal(m.config.Annotations, map[string]string{
		"io.nodeagent.run-as-non-root": strconv.FormatBool(nonRoot), "io.nodeagent.post-start": strconv.FormatBool(hook),
	}) {
		return fmt.Sprintf("annotations %v of the container", m.config.Annotations)
	}
	for _, set := range []map[string]string{m.config.Labels, m.in.Labels, m.in.Annotations} {
		for key := range set {
			_, label := m.pod.Labels[key]
			_, annotation := m.pod.Annotations[key]
			if (label || annotation) && !strings.HasSuffix(key, "gress-bandwidth") {
				return "the pod's own " + key + " reaches the runtime"
			}
		}
	}
	return ""
}
