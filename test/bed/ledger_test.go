package bed_test

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/test/bed"
)

// TestLedger: what a daemon told before the power went binds the next one; what
// holds for one boot only does not.
func TestLedger(t *testing.T) {
	pod := func(uid string, phase corev1.PodPhase, ip, container string) bed.Change {
		p := &corev1.Pod{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever}}
		p.Name, p.UID = uid, types.UID(uid)
		p.Status.Phase, p.Status.PodIP = phase, ip
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", ContainerID: container}}
		return bed.Change{Pod: p}
	}
	for name, c := range map[string]struct {
		before, after []bed.Change
		want          string // part of what is reported; "": nothing
	}{
		"nothing new":       {before: []bed.Change{pod("a", "Running", "10.0.0.1", "1")}, after: []bed.Change{pod("a", "Failed", "10.0.0.1", "1")}},
		"address of before": {before: []bed.Change{pod("a", "Running", "10.0.0.1", "1")}, after: []bed.Change{pod("b", "Running", "10.0.0.1", "2")}},
		"runs again":        {before: []bed.Change{pod("a", "Running", "", "1")}, after: []bed.Change{pod("a", "Running", "", "2")}, want: "must run once"},
		"ended and runs":    {before: []bed.Change{pod("a", "Succeeded", "", "1")}, after: []bed.Change{pod("a", "Running", "", "1")}, want: "from Succeeded to Running"},
		"two of one address": {after: []bed.Change{pod("a", "Running", "10.0.0.1", "1"), pod("b", "Running", "10.0.0.1", "2")},
			want: "has address 10.0.0.1"},
		"address of one that ended": {after: []bed.Change{pod("a", "Running", "10.0.0.1", "1"), pod("a", "Failed", "10.0.0.1", "1"),
			pod("b", "Running", "10.0.0.1", "2")}},
	} {
		l := bed.NewLedger()
		l.Boot()
		for _, s := range c.before {
			l.See(s)
		}
		l.Dark()
		l.See(pod("late", "Succeeded", "", "9"))
		l.Boot()
		for _, s := range append(slices.Clone(c.after), pod("late", "Running", "", "9")) {
			l.See(s)
		}
		if got := strings.Join(l.Illegal(), "; "); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: reported %q, want %q", name, got, c.want)
		}
	}
}
