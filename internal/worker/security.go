package worker

import (
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/pod"
)

// securityContext merges the pod's security context with the container's, which
// wins, and says it in CRI's words.
func (n Node) securityContext(p *corev1.Pod, c *corev1.Container) *runtimeapi.LinuxContainerSecurityContext {
	ps, cs := p.Spec.SecurityContext, c.SecurityContext
	if ps == nil {
		ps = &corev1.PodSecurityContext{}
	}
	if cs == nil {
		cs = &corev1.SecurityContext{}
	}
	out := &runtimeapi.LinuxContainerSecurityContext{
		NamespaceOptions:         namespaceOptions(p),
		Privileged:               is(cs.Privileged),
		ReadonlyRootfs:           is(cs.ReadOnlyRootFilesystem),
		NoNewPrivs:               cs.AllowPrivilegeEscalation != nil && !*cs.AllowPrivilegeEscalation,
		RunAsUser:                int64Value(first(cs.RunAsUser, ps.RunAsUser)),
		RunAsGroup:               int64Value(first(cs.RunAsGroup, ps.RunAsGroup)),
		SupplementalGroups:       supplementalGroups(ps),
		SupplementalGroupsPolicy: groupsPolicy(ps),
		Seccomp:                  n.seccomp(ps.SeccompProfile, cs.SeccompProfile, is(cs.Privileged)),
		Apparmor:                 appArmor(pod.AppArmorProfile(p, c)),
		MaskedPaths:              pod.MaskedPaths(cs.ProcMount),
		ReadonlyPaths:            pod.ReadonlyPaths(cs.ProcMount),
	}
	if cs.Capabilities != nil {
		out.Capabilities = &runtimeapi.Capability{}
		for _, name := range cs.Capabilities.Add {
			out.Capabilities.AddCapabilities = append(out.Capabilities.AddCapabilities, string(name))
		}
		for _, name := range cs.Capabilities.Drop {
			out.Capabilities.DropCapabilities = append(out.Capabilities.DropCapabilities, string(name))
		}
	}
	return out
}

// runAsNonRoot tells whether the container must not run as uid 0; what the uid
// is, only the runtime knows, from the image.
func runAsNonRoot(p *corev1.Pod, c *corev1.Container) bool {
	if c.SecurityContext != nil && c.SecurityContext.RunAsNonRoot != nil {
		return *c.SecurityContext.RunAsNonRoot
	}
	return p.Spec.SecurityContext != nil && is(p.Spec.SecurityContext.RunAsNonRoot)
}

func supplementalGroups(ps *corev1.PodSecurityContext) []int64 {
	var groups []int64
	if ps.FSGroup != nil {
		groups = append(groups, *ps.FSGroup)
	}
	return append(groups, ps.SupplementalGroups...)
}

func groupsPolicy(ps *corev1.PodSecurityContext) runtimeapi.SupplementalGroupsPolicy {
	if p := ps.SupplementalGroupsPolicy; p != nil && *p == corev1.SupplementalGroupsPolicyStrict {
		return runtimeapi.SupplementalGroupsPolicy_Strict
	}
	return runtimeapi.SupplementalGroupsPolicy_Merge
}

// seccomp: a pod that says nothing gets the runtime's default profile, which is
// stricter than kubelet's default, unless the operator chose that.
func (n Node) seccomp(ofPod, ofContainer *corev1.SeccompProfile, privileged bool) *runtimeapi.SecurityProfile {
	profile := ofPod
	if ofContainer != nil {
		profile = ofContainer
	}
	switch {
	case privileged, profile == nil && n.Unconfined, profile != nil && profile.Type == corev1.SeccompProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	case profile != nil && profile.Type == corev1.SeccompProfileTypeLocalhost:
		ref := ""
		if profile.LocalhostProfile != nil {
			ref = *profile.LocalhostProfile
		}
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: ref}
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
}

// appArmor says a profile in CRI's words; nil is none, where the runtime decides.
func appArmor(profile *corev1.AppArmorProfile) *runtimeapi.SecurityProfile {
	switch {
	case profile == nil:
		return nil
	case profile.Type == corev1.AppArmorProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	case profile.Type == corev1.AppArmorProfileTypeLocalhost && profile.LocalhostProfile != nil:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: *profile.LocalhostProfile}
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
}

func is(b *bool) bool { return b != nil && *b }

func first(a, b *int64) *int64 {
	if a != nil {
		return a
	}
	return b
}

func int64Value(v *int64) *runtimeapi.Int64Value {
	if v == nil {
		return nil
	}
	return &runtimeapi.Int64Value{Value: *v}
}
