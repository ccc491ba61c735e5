package pod

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// ReasonAppArmor is the reason of a pod that asks for an AppArmor profile where
// none can be enforced (kubelet: pkg/kubelet/lifecycle/handlers.go).
const ReasonAppArmor = "AppArmor"

// AppArmorProfile is the profile that a container asks for: its own, else that of
// the annotation by which it was given before there was a field, else the pod's.
// nil is none, which is not Unconfined (kubelet: pkg/security/apparmor).
func AppArmorProfile(p *corev1.Pod, c *corev1.Container) *corev1.AppArmorProfile {
	if c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil {
		return c.SecurityContext.AppArmorProfile
	}
	if profile := annotatedAppArmor(p, c.Name); profile != nil {
		return profile
	}
	if p.Spec.SecurityContext != nil {
		return p.Spec.SecurityContext.AppArmorProfile
	}
	return nil
}

// annotatedAppArmor reads the annotation; validation has refused what is none of
// its values.
func annotatedAppArmor(p *corev1.Pod, container string) *corev1.AppArmorProfile {
	text, ok := p.Annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+container]
	if !ok {
		return nil
	}
	switch name, local := strings.CutPrefix(text, corev1.DeprecatedAppArmorBetaProfileNamePrefix); {
	case local:
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: &name}
	case text == corev1.DeprecatedAppArmorBetaProfileRuntimeDefault:
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}
	case text == corev1.DeprecatedAppArmorBetaProfileNameUnconfined:
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
	}
	return nil
}

// admitAppArmor refuses a profile that would not be enforced, and a Localhost
// profile without a name.
func admitAppArmor(p *corev1.Pod, why string) *Rejection {
	check := func(profile *corev1.AppArmorProfile) *Rejection {
		switch {
		case profile == nil || profile.Type == corev1.AppArmorProfileTypeUnconfined:
		case why != "":
			return &Rejection{Reason: ReasonAppArmor, Message: "Cannot enforce AppArmor: " + why + "; remove the appArmorProfile to run the pod here"}
		case profile.Type == corev1.AppArmorProfileTypeLocalhost && (profile.LocalhostProfile == nil || strings.TrimSpace(*profile.LocalhostProfile) == ""):
			return &Rejection{Reason: ReasonAppArmor, Message: "Cannot enforce AppArmor: invalid empty AppArmor profile name; name a profile in localhostProfile"}
		}
		return nil
	}
	if sc := p.Spec.SecurityContext; sc != nil {
		if r := check(sc.AppArmorProfile); r != nil {
			return r
		}
	}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			if r := check(AppArmorProfile(p, &list[i])); r != nil {
				return r
			}
		}
	}
	for i := range p.Spec.EphemeralContainers {
		c := corev1.Container(p.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		if r := check(AppArmorProfile(p, &c)); r != nil {
			return r
		}
	}
	return nil
}
