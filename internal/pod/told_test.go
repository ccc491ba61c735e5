package pod

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestTold: a new daemon goes on from what the one before told, and the conditions of
// others are always the API server's.
func TestTold(t *testing.T) {
	gate := func(status corev1.ConditionStatus) corev1.PodCondition {
		return corev1.PodCondition{Type: "example.com/gate", Status: status}
	}
	ready := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue}
	started := &metav1.Time{Time: time.Unix(1000, 0)}
	of := func(status corev1.PodStatus) Desired { return Desired{Pod: &corev1.Pod{Status: status}} }

	got := Told(of(corev1.PodStatus{Phase: corev1.PodFailed, StartTime: started}), corev1.PodStatus{})
	if got.Phase != corev1.PodFailed || got.StartTime != started {
		t.Errorf("the first turn of a new daemon goes on from %+v, want what the API server has", got)
	}
	got = Told(of(corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{gate(corev1.ConditionTrue)}}), corev1.PodStatus{})
	if got.Phase != "" || len(got.Conditions) != 1 {
		t.Errorf("a pod that no node told of goes on from %+v, want the conditions of others alone", got)
	}
	got = Told(of(corev1.PodStatus{Phase: corev1.PodPending, StartTime: started, Conditions: []corev1.PodCondition{gate(corev1.ConditionTrue)}}),
		corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{gate(corev1.ConditionFalse), ready}})
	if got.Phase != corev1.PodRunning || len(got.Conditions) != 2 || got.Conditions[0].Status != corev1.ConditionTrue || got.Conditions[1] != ready {
		t.Errorf("goes on from %+v, want our own status with the gate as the API server has it", got)
	}
	static := of(corev1.PodStatus{Phase: corev1.PodPending})
	static.Pod.Annotations = map[string]string{annotationSource: "file"}
	if got = Told(static, corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{ready}}); len(got.Conditions) != 1 || got.Phase != corev1.PodRunning {
		t.Errorf("a static pod goes on from %+v, want what was told", got)
	}
}
