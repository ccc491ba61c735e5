package pod

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestReferences: every place in which a pod may name a ConfigMap or a Secret is
// looked at, and each object is listed once.
func TestReferences(t *testing.T) {
	named := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	env := func(name string) []corev1.EnvVar {
		return []corev1.EnvVar{
			{Name: "L", Value: "literal"},
			{Name: "A", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: named(name)}}},
			{Name: "B", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: named(name)}}},
		}
	}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns"},
		Spec: corev1.PodSpec{
			ImagePullSecrets: []corev1.LocalObjectReference{named("pull"), named("")},
			Volumes: []corev1.Volume{
				{VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: named("volume")}}},
				{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "volume"}}},
				{VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
					{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: named("projected")}},
					{Secret: &corev1.SecretProjection{LocalObjectReference: named("projected")}},
				}}}},
			},
			InitContainers: []corev1.Container{{Env: env("init")}},
			Containers: []corev1.Container{{Env: env("init"), EnvFrom: []corev1.EnvFromSource{
				{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: named("from")}},
				{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: named("from")}},
			}}},
			EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Env: env("debug")}}},
		},
	}
	var want []ObjectRef
	for _, name := range []string{"debug", "from", "init", "projected", "volume"} {
		want = append(want, ObjectRef{ConfigMapKind, "ns", name})
	}
	for _, name := range []string{"debug", "from", "init", "projected", "pull", "volume"} {
		want = append(want, ObjectRef{SecretKind, "ns", name})
	}
	if got := References(p); !slices.Equal(got, want) {
		t.Errorf("the pod refers to\n%v\nwant\n%v", got, want)
	}
}

// TestReferencesBeyondData: claims, those that are made for the pod included, and
// the pod's tokens as one.
func TestReferencesBeyondData(t *testing.T) {
	token := func(audience string, seconds *int64) corev1.VolumeProjection {
		return corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: audience, ExpirationSeconds: seconds}}
	}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "uid"}}
	p.Spec.Volumes = []corev1.Volume{
		{Name: "c", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"}}},
		{Name: "e", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}},
		{Name: "t", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			token("", nil), token("", new(int64(3607))), token("a", new(int64(3607)))}}}},
		{Name: "u", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{token("", nil)}}}},
	}
	want := []ObjectRef{{ClaimKind, "ns", "claim"}, {ClaimKind, "ns", "p-e"}, {TokenKind, "ns", "uid"}}
	if got := References(p); !slices.Equal(got, want) {
		t.Errorf("the pod refers to %v, want %v", got, want)
	}
	wishes := []TokenWish{{}, {Seconds: 3607}, {Audience: "a", Seconds: 3607}}
	if got := Tokens(p); !slices.Equal(got, wishes) {
		t.Errorf("the pod's tokens are %v, want %v", got, wishes)
	}
}

// TestFSUser: who has to read a pod's tokens, when it is one user.
func TestFSUser(t *testing.T) {
	as := func(user int64) *corev1.SecurityContext { return &corev1.SecurityContext{RunAsUser: &user} }
	for _, x := range []struct {
		what       string
		pod        *int64
		containers []*corev1.SecurityContext
		debug      []*corev1.SecurityContext
		want       *int64
	}{
		{what: "nobody says", containers: []*corev1.SecurityContext{nil}},
		{what: "the pod says", pod: new(int64(7)), containers: []*corev1.SecurityContext{nil, {}}, want: new(int64(7))},
		{what: "root", pod: new(int64(0)), containers: []*corev1.SecurityContext{nil}, want: new(int64(0))},
		{what: "all containers say", containers: []*corev1.SecurityContext{as(5), as(5)}, want: new(int64(5))},
		{what: "one does not say", containers: []*corev1.SecurityContext{as(5), nil}},
		{what: "they differ", pod: new(int64(7)), containers: []*corev1.SecurityContext{nil, as(5)}},
		{what: "a debug container differs", pod: new(int64(7)), containers: []*corev1.SecurityContext{nil}, debug: []*corev1.SecurityContext{as(0)}},
	} {
		p := &corev1.Pod{}
		if x.pod != nil {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: x.pod}
		}
		for i, sc := range x.containers {
			c := corev1.Container{SecurityContext: sc}
			if i == 0 {
				p.Spec.InitContainers = append(p.Spec.InitContainers, c)
			} else {
				p.Spec.Containers = append(p.Spec.Containers, c)
			}
		}
		for _, sc := range x.debug {
			p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{SecurityContext: sc}})
		}
		got := FSUser(p)
		if (got == nil) != (x.want == nil) || got != nil && *got != *x.want {
			t.Errorf("%s: %v, want %v", x.what, got, x.want)
		}
	}
}
