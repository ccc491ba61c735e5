package pod

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestUnbuilt: a pod that asks for what the node does not give it waits and says for
// what; one of which there is something goes on, as does one that is to go.
func TestUnbuilt(t *testing.T) {
	p := testPod(always, "i", "a")
	d := Desired{Wish: WishRun, Pod: p, Unbuilt: &Rejection{Reason: ReasonUnsupported, Message: "spec.hostUsers is not"}}
	o := observed(nil)
	o.Dirty = false
	if got := show(Plan(d, o, t0)); got != "" {
		t.Errorf("it is begun: %s", got)
	}
	s := Status(d, o, Node{}, corev1.PodStatus{}, t0)
	if s.Phase != corev1.PodPending || s.Reason != ReasonUnsupported || s.Message != d.Unbuilt.Message {
		t.Errorf("it is told as %s, %s: %s", s.Phase, s.Reason, s.Message)
	}
	for _, c := range append(s.InitContainerStatuses, s.ContainerStatuses...) {
		if w := c.State.Waiting; w == nil || w.Reason != ReasonUnsupported || w.Message != d.Unbuilt.Message {
			t.Errorf("container %s is told as %+v", c.Name, c.State)
		}
	}
	if got := show(Plan(d, observed(ready), t0)); got == "" {
		t.Error("what an earlier daemon has begun does not go on")
	}
	d.Wish = WishAbsent
	if steps := Plan(d, o, t0); !steps.Done {
		t.Errorf("it does not go: %s", show(steps))
	}
}

// TestUnbuiltEphemeral: an ephemeral container may be there before the node has seen
// the pod; a manifest cannot have one.
func TestUnbuiltEphemeral(t *testing.T) {
	p := testPod(always, "", "a")
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug"}}}
	if r := Unbuilt(p, Allowed{Cluster: true}); r != nil {
		t.Errorf("of the API server: %s", r.Message)
	}
	fromFile(p)
	if r := Unbuilt(p, Allowed{Cluster: true}); r == nil || !strings.HasPrefix(r.Message, "spec.ephemeralContainers ") {
		t.Errorf("of a file: %+v", r)
	}
}
