package pod

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestVolumeMounts: what the status tells of a run's mounts.
func TestVolumeMounts(t *testing.T) {
	for _, x := range []struct {
		readOnly, can bool
		mode          *corev1.RecursiveReadOnlyMode
		want          string // "" for nothing said
	}{
		{false, true, nil, ""}, {true, true, nil, "Disabled"}, {true, true, new(corev1.RecursiveReadOnlyDisabled), "Disabled"},
		{true, true, new(corev1.RecursiveReadOnlyIfPossible), "Enabled"}, {true, false, new(corev1.RecursiveReadOnlyIfPossible), "Disabled"},
		{true, true, new(corev1.RecursiveReadOnlyEnabled), "Enabled"},
	} {
		p := testPod(corev1.RestartPolicyAlways, "", "a")
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v", ReadOnly: x.readOnly, RecursiveReadOnly: x.mode}}
		o := observed(ready, "a#0@s0 running")
		o.Containers[0].RecursiveReadOnly = x.can
		s := Status(Desired{Wish: WishRun, Pod: p}, o, Node{}, corev1.PodStatus{}, t0).ContainerStatuses[0].VolumeMounts
		got := ""
		if len(s) == 1 && s[0].RecursiveReadOnly != nil {
			got = string(*s[0].RecursiveReadOnly)
		}
		if len(s) != 1 || s[0].Name != "v" || s[0].MountPath != "/v" || s[0].ReadOnly != x.readOnly || got != x.want {
			t.Errorf("%+v became %s", x, fmt.Sprint(s))
		}
	}
}
