package status

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// TestDifference: the API server, whose merge this is, makes of any status any other by
// the difference, and there is none where both are the same to it.
func TestDifference(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		have, want := anyStatus(r), anyStatus(r)
		if d := difference("u", &have, &have); d != nil {
			t.Fatalf("a status differs from itself by %s", d)
		}
		d := difference("u", &have, &want)
		if d == nil {
			if diff := cmp.Diff(text(t, have), text(t, want)); diff != "" {
				t.Fatalf("no difference is found, but there is %s", diff)
			}
			continue
		}
		got, err := strategicpatch.StrategicMergePatch([]byte(text(t, have)), d, &corev1.Pod{})
		if err != nil {
			t.Fatalf("%s: %v", d, err)
		}
		var p corev1.Pod
		if err := json.Unmarshal(got, &p); err != nil {
			t.Fatal(err)
		}
		if left := difference("u", &p.Status, &want); left != nil || p.UID != "u" {
			t.Fatalf("after %s\nthere is %s\nleft", d, left)
		}
	}
}

func text(t *testing.T, s corev1.PodStatus) string {
	t.Helper()
	b, err := json.Marshal(&corev1.Pod{Status: s})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// anyStatus draws a status from few values, so that parts of two are often the same.
func anyStatus(r *rand.Rand) (s corev1.PodStatus) {
	word := func() string { return []string{"", "a", "b"}[r.IntN(3)] }
	moment := func() metav1.Time { return metav1.NewTime(time.Unix(int64(1000+r.IntN(2)), int64(r.IntN(1e9)))) }
	s.Phase, s.Reason, s.Message = corev1.PodPhase(word()), word(), word()
	s.HostIP, s.PodIP, s.QOSClass = word(), word(), corev1.PodQOSClass(word())
	s.ObservedGeneration = int64(r.IntN(3))
	if r.IntN(2) == 0 {
		s.StartTime = new(moment())
	}
	for i := range r.IntN(3) {
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: fmt.Sprint(i, word())})
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: fmt.Sprint(i, word())})
		s.ContainerStatuses = append(s.ContainerStatuses, corev1.ContainerStatus{Name: fmt.Sprint(i), RestartCount: r.Int32N(2)})
	}
	for _, c := range []corev1.PodConditionType{"Ready", "Other", "Initialized"} {
		if r.IntN(3) > 0 {
			s.Conditions = append(s.Conditions, corev1.PodCondition{
				Type: c, Status: corev1.ConditionStatus(word()), Reason: word(), Message: word(),
				LastTransitionTime: moment(), ObservedGeneration: int64(r.IntN(2)),
			})
		}
	}
	return s
}

// TestPatchIsSmall: a patch holds what changed, the UID, and nothing of others.
func TestPatchIsSmall(t *testing.T) {
	have := anyStatus(rand.New(rand.NewPCG(7, 7)))
	have.Conditions = []corev1.PodCondition{{Type: "example.com/gate", Status: "True"}, {Type: corev1.PodReady, Status: "False"}}
	want := have
	want.Conditions = []corev1.PodCondition{have.Conditions[0], {Type: corev1.PodReady, Status: "True"}}
	d := string(difference("u", &have, &want))
	for part, in := range map[string]bool{`"uid":"u"`: true, `"type":"Ready"`: true, "gate": false, "phase": false, "containerStatuses": false} {
		if strings.Contains(d, part) != in {
			t.Errorf("%s in the patch: %t, want %t: %s", part, !in, in, d)
		}
	}
}
