package validate

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	localhostPrefix = "localhost/"
	maxProfilePath  = 4095 // PATH_MAX - 1
	mustMatch       = "the annotation and the field must match"
)

// checkSeccomp judges a seccomp profile of a pod or container.
func checkSeccomp(at spot, p *corev1.SeccompProfile) {
	if p == nil {
		return
	}
	someOf(at.child("type"), p.Type, corev1.SeccompProfileTypeLocalhost,
		corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)
	file := at.child("localhostProfile")
	switch local := p.Type == corev1.SeccompProfileTypeLocalhost; {
	case local && p.LocalhostProfile == nil:
		file.required("must be set when seccomp type is Localhost")
	case local:
		relative(file, *p.LocalhostProfile)
	case p.LocalhostProfile != nil:
		file.invalid(*p.LocalhostProfile, "can only be set when seccomp type is Localhost")
	}
}

// checkAppArmor judges an AppArmor profile of a pod or container.
func checkAppArmor(at spot, p *corev1.AppArmorProfile) {
	if p == nil {
		return
	}
	someOf(at.child("type"), p.Type, corev1.AppArmorProfileTypeLocalhost,
		corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined)
	name := at.child("localhostProfile")
	switch local := p.Type == corev1.AppArmorProfileTypeLocalhost; {
	case local && p.LocalhostProfile == nil:
		name.required("must be set when AppArmor type is Localhost")
	case local:
		if name.filled(*p.LocalhostProfile) && strings.TrimSpace(*p.LocalhostProfile) != *p.LocalhostProfile {
			name.invalid(*p.LocalhostProfile, "must not be padded with whitespace")
		}
		if len(*p.LocalhostProfile) > maxProfilePath {
			name.tooLong(maxProfilePath)
		}
	case p.LocalhostProfile != nil:
		name.invalid(*p.LocalhostProfile, "can only be set when AppArmor type is Localhost")
	}
}

// checkSeccompAnnotations judges the annotations that seccomp profiles were
// given by before there was a field. They choose nothing any more.
func checkSeccompAnnotations(at spot, annotations map[string]string) {
	for k, profile := range annotations {
		if k != corev1.SeccompPodAnnotationKey && !strings.HasPrefix(k, corev1.SeccompContainerAnnotationKeyPrefix) {
			continue
		}
		switch file, local := strings.CutPrefix(profile, localhostPrefix); {
		case local:
			relative(at.key(k), file)
		case profile != "runtime/default" && profile != "docker/default" && profile != "unconfined":
			at.key(k).invalid(profile, "must be a valid seccomp profile")
		}
	}
}

// checkAppArmorAnnotations judges the annotations that AppArmor profiles were
// given by before there was a field.
func checkAppArmorAnnotations(at spot, pod *corev1.Pod) {
	names := seen{}
	everyContainer(at, &pod.Spec, func(_ spot, c *corev1.Container) { names[c.Name] = true })
	for k, profile := range pod.Annotations {
		name, ok := strings.CutPrefix(k, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix)
		if !ok {
			continue
		}
		if !names[name] {
			at.key(k).invalid(name, "container not found")
		}
		if profile != "" && profile != "runtime/default" && profile != "unconfined" && !strings.HasPrefix(profile, localhostPrefix) {
			at.key(k).invalid(profile, "invalid AppArmor profile name")
		}
	}
}

// checkProfilesMatch refuses an annotation that contradicts the field.
func checkProfilesMatch(at spot, pod *corev1.Pod) {
	var seccomp *corev1.SeccompProfile
	var appArmor *corev1.AppArmorProfile
	if sc := pod.Spec.SecurityContext; sc != nil {
		seccomp, appArmor = sc.SeccompProfile, sc.AppArmorProfile
	}
	windows := pod.Spec.OS != nil && pod.Spec.OS.Name == corev1.Windows
	seccompMatches(at.child("securityContext"), seccomp, pod.Annotations, corev1.SeccompPodAnnotationKey)
	everyContainer(at, &pod.Spec, func(here spot, c *corev1.Container) {
		here, own := here.child("securityContext"), appArmor
		if sc := c.SecurityContext; sc != nil {
			seccompMatches(here, sc.SeccompProfile, pod.Annotations, corev1.SeccompContainerAnnotationKeyPrefix+c.Name)
			if sc.AppArmorProfile != nil {
				own = sc.AppArmorProfile
			}
		}
		if !windows {
			appArmorMatches(here, own, pod.Annotations, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name)
		}
	})
}

func seccompMatches(at spot, p *corev1.SeccompProfile, annotations map[string]string, key string) {
	text, there := annotations[key]
	if p == nil || !there {
		return
	}
	match := true
	switch p.Type {
	case corev1.SeccompProfileTypeUnconfined:
		match = text == "unconfined"
	case corev1.SeccompProfileTypeRuntimeDefault:
		match = text == "runtime/default" || text == "docker/default"
	case corev1.SeccompProfileTypeLocalhost:
		match = p.LocalhostProfile != nil && text == localhostPrefix+*p.LocalhostProfile
	}
	if !match {
		at.child("seccompProfile").child("type").forbidden(mustMatch)
	}
}

func appArmorMatches(at spot, p *corev1.AppArmorProfile, annotations map[string]string, key string) {
	text, there := annotations[key]
	if p == nil || !there {
		return
	}
	match := true
	switch p.Type {
	case corev1.AppArmorProfileTypeUnconfined:
		match = text == "unconfined"
	case corev1.AppArmorProfileTypeRuntimeDefault:
		match = text == "runtime/default"
	case corev1.AppArmorProfileTypeLocalhost:
		match = p.LocalhostProfile != nil && text == localhostPrefix+*p.LocalhostProfile
	}
	if !match {
		at.child("appArmorProfile").child("type").forbidden(mustMatch)
	}
}
