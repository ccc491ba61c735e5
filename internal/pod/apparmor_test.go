package pod

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func armor(kind corev1.AppArmorProfileType, name ...string) *corev1.AppArmorProfile {
	p := &corev1.AppArmorProfile{Type: kind}
	if len(name) > 0 {
		p.LocalhostProfile = &name[0]
	}
	return p
}

// TestAppArmorProfile: the container's field wins over its annotation, and that
// over the pod's field.
func TestAppArmorProfile(t *testing.T) {
	const local, byDefault, free = corev1.AppArmorProfileTypeLocalhost, corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined
	for name, c := range map[string]struct {
		pod, container *corev1.AppArmorProfile
		annotation     string
		want           string
	}{
		"nothing":                       {},
		"pod":                           {pod: armor(byDefault), want: "RuntimeDefault"},
		"container":                     {pod: armor(byDefault), container: armor(free), want: "Unconfined"},
		"annotation over pod":           {pod: armor(byDefault), annotation: "localhost/x", want: "Localhost x"},
		"annotation, default":           {annotation: "runtime/default", want: "RuntimeDefault"},
		"annotation, unconfined":        {pod: armor(byDefault), annotation: "unconfined", want: "Unconfined"},
		"annotation that is none":       {pod: armor(byDefault), annotation: "x", want: "RuntimeDefault"},
		"container over its annotation": {container: armor(local, "a"), annotation: "localhost/b", want: "Localhost a"},
	} {
		p := testPod(corev1.RestartPolicyAlways, "", "a")
		p.Spec.SecurityContext = &corev1.PodSecurityContext{AppArmorProfile: c.pod}
		p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{AppArmorProfile: c.container}
		if c.annotation != "" {
			p.Annotations = map[string]string{"container.apparmor.security.beta.kubernetes.io/a": c.annotation}
		}
		got := ""
		if profile := AppArmorProfile(p, &p.Spec.Containers[0]); profile != nil {
			got = string(profile.Type)
			if profile.LocalhostProfile != nil {
				got += " " + *profile.LocalhostProfile
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestAdmitAppArmor: a profile that would not be enforced is refused wherever it
// stands, and none is not missed.
func TestAdmitAppArmor(t *testing.T) {
	set := map[string]func(*corev1.Pod, *corev1.AppArmorProfile){
		"pod": func(p *corev1.Pod, a *corev1.AppArmorProfile) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{AppArmorProfile: a}
		},
		"init": func(p *corev1.Pod, a *corev1.AppArmorProfile) {
			p.Spec.InitContainers[0].SecurityContext = &corev1.SecurityContext{AppArmorProfile: a}
		},
		"container": func(p *corev1.Pod, a *corev1.AppArmorProfile) {
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{AppArmorProfile: a}
		},
		"annotation": func(p *corev1.Pod, a *corev1.AppArmorProfile) {
			p.Annotations = map[string]string{"container.apparmor.security.beta.kubernetes.io/a": map[corev1.AppArmorProfileType]string{
				"Localhost": "localhost/x", "RuntimeDefault": "runtime/default", "Unconfined": "unconfined"}[a.Type]}
		},
	}
	for where, put := range set {
		for _, profile := range []*corev1.AppArmorProfile{armor("Localhost", "x"), armor("RuntimeDefault"), armor("Unconfined")} {
			for _, lacks := range []string{"", "AppArmor is not enabled on the host"} {
				p := testPod(corev1.RestartPolicyAlways, "i", "a")
				put(p, profile)
				r := Admit(p, Allowed{NoAppArmor: lacks})
				refused := lacks != "" && profile.Type != "Unconfined"
				if (r != nil) != refused || r != nil && (r.Reason != "AppArmor" || !strings.Contains(r.Message, "Cannot enforce AppArmor: "+lacks)) {
					t.Errorf("%s of the %s where %q: %+v", profile.Type, where, lacks, r)
				}
			}
		}
	}
	p := testPod(corev1.RestartPolicyAlways, "", "a")
	set["container"](p, armor("Localhost", " "))
	if r := Admit(p, Allowed{}); r == nil || r.Reason != ReasonAppArmor {
		t.Errorf("a profile without a name is answered with %+v", r)
	}
}

// TestAdmitHandler: an unknown handler is refused by a reason that tells those
// there are.
func TestAdmitHandler(t *testing.T) {
	p := testPod(corev1.RestartPolicyAlways, "", "a")
	for _, c := range []struct {
		class string
		known []string
		says  string // "": admitted
	}{
		{"", nil, ""},
		{"kata", nil, "none beside the default"},
		{"kata", []string{"runsc", "crun"}, "crun, runsc"},
		{"crun", []string{"runsc", "crun"}, ""},
	} {
		p.Spec.RuntimeClassName = nil
		if c.class != "" {
			p.Spec.RuntimeClassName = &c.class
		}
		r := Admit(p, Allowed{Handlers: c.known})
		if (r == nil) != (c.says == "") || r != nil && (r.Reason != ReasonRuntimeHandler || !strings.Contains(r.Message, c.says) || !strings.Contains(r.Message, "kata")) {
			t.Errorf("class %q with %v is answered with %+v", c.class, c.known, r)
		}
	}
}
