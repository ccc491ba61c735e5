package worker

import (
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"nodeagent/internal/pod"
)

// TestAbsentObjectWaitsForIt: what failed for want of an object is not tried
// again by the clock, and at once when the object changes, also when it changed
// while the step was under way.
func TestAbsentObjectWaitsForIt(t *testing.T) {
	ref := pod.ObjectRef{Kind: pod.SecretKind, Namespace: "ns", Name: "s"}
	p := &corev1.Pod{}
	p.Namespace = "ns"
	p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "s"}}
	w := newWorker(&Set{cfg: Config{Logger: quietLogger}}, "u", "ns/p", pod.Desired{Wish: pod.WishRun, Pod: p}, false)
	a := pod.Action{Kind: pod.StartContainer, Name: "app"}
	missing := fmt.Errorf("look: %w", apierrors.NewNotFound(corev1.Resource("secret"), "s"))

	w.finish(result{action: a, err: missing})
	if f := w.failed[a.Op()]; !f.Absent {
		t.Errorf("the failure %+v does not wait for the object", f)
	}
	w.objectChanged(pod.ObjectRef{Kind: pod.SecretKind, Namespace: "other", Name: "s"})
	w.answerObjects()
	if len(w.failed) != 1 {
		t.Error("the change of another object ended the wait")
	}
	w.objectChanged(ref)
	w.answerObjects()
	if len(w.failed) != 0 {
		t.Error("the change of the object did not end the wait")
	}

	w.finish(result{action: a, err: missing}) // begun before the change
	if f := w.failed[a.Op()]; f.Absent || f.RetryAt().After(time.Now().Add(time.Minute)) {
		t.Errorf("the failure %+v waits for a change that has come already", f)
	}
	w.finish(result{action: a, err: errors.New("another"), objects: w.answered})
	if w.failed[a.Op()].Absent {
		t.Error("another failure waits for an object")
	}
}
