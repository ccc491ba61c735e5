package diag

import (
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
	"nodeagent/internal/source"
)

func explained(t *testing.T, e *Eye, name string) *pod.Explanation {
	t.Helper()
	v, err := e.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	x, err := e.Explain(t.Context(), v, name)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// TestExplainByTheDaemon: the daemon's word is taken as it is, also of a pod that is
// awaited, for which it is asked in place of the pod before.
func TestExplainByTheDaemon(t *testing.T) {
	now, later := staticPod("web-node", "app"), staticPod("web-node", "app")
	later.UID = "later"
	socket := serve(t, map[string]any{
		"pods": corev1.PodList{Items: []corev1.Pod{*now}}, "awaited": []corev1.Pod{*later},
		"problems":                       []source.Problem{{File: "/m/bad.yaml", Line: 3, Message: "spec.x: unknown field"}, {File: "/m/we.yaml", Message: "file holds no pod"}},
		"explain?uid=later":              pod.Explanation{Name: "web-node", Summary: "of the later one"},
		"explain?uid=" + string(now.UID): pod.Explanation{Name: "web-node", Summary: "of the one that is there"},
	})
	e := eye(t, socket, fakeRuntime{states: []pod.RuntimeState{running(now)}})
	for name, want := range map[string]string{
		"web": "of the later one", "default/web-node": "of the later one", "later": "of the later one", string(now.UID): "of the one that is there",
	} {
		if x := explained(t, e, name); x.Summary != want {
			t.Errorf("of %s it says %q, want %q", name, x.Summary, want)
		}
	}
	for _, name := range []string{"bad", "bad-node", "default/bad", "bad.yaml", "/m/bad.yaml"} {
		if x := explained(t, e, name); x.Blocks == nil || x.Blocks.Gate != pod.GateSource || !strings.Contains(x.Summary, "/m/bad.yaml:3: spec.x: unknown field") {
			t.Errorf("of %s it says %+v", name, x)
		}
	}
	if x := explained(t, e, "we"); !strings.Contains(x.Summary, "holds no pod") {
		t.Errorf("of a manifest whose name begins a pod's it says %q", x.Summary)
	}
	v, err := e.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var missing *NotFoundError
	if _, err := e.Explain(t.Context(), v, "nothing"); !errors.As(err, &missing) {
		t.Errorf("of nothing it says %v", err)
	}
}

// TestExplainByAnOlderDaemon: one that cannot tell the gates leaves them to its statuses.
func TestExplainByAnOlderDaemon(t *testing.T) {
	p := staticPod("web-node", "app")
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	socket := serve(t, map[string]any{"pods": corev1.PodList{Items: []corev1.Pod{*p}}, "problems": []source.Problem{}})
	e := eye(t, socket, fakeRuntime{states: []pod.RuntimeState{running(p)}})
	v, err := e.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	x, err := e.Explain(t.Context(), v, "web")
	if err != nil || len(v.Notes) != 1 || !strings.Contains(v.Notes[0], "does not tell how the gates") || x.Phase != corev1.PodRunning {
		t.Errorf("it says %+v, %v, %v", x, v.Notes, err)
	}
}

// TestExplainKept: without the daemon pods of the API server are told of as it knew them
// last, also those of which nothing began, and their objects are looked for nowhere.
func TestExplainKept(t *testing.T) {
	up, fresh, leaves, over := staticPod("up", "app"), staticPod("fresh", "app"), staticPod("leaves", "app"), staticPod("over", "app")
	for _, p := range []*corev1.Pod{up, fresh, leaves, over} {
		p.Annotations = nil
	}
	fresh.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "db"}}}}
	leaves.DeletionTimestamp = &metav1.Time{Time: t0}
	over.Status = corev1.PodStatus{Phase: corev1.PodSucceeded, StartTime: &metav1.Time{Time: t0}}
	e := eye(t, "/nothing", fakeRuntime{states: []pod.RuntimeState{running(up), running(leaves)}})
	e.cfg.Cluster = true
	if x := explained(t, e, "up"); !strings.Contains(x.Summary, "whether the API server does") {
		t.Errorf("of a pod that nobody remembers it says %q", x.Summary)
	}
	var missing *NotFoundError
	if _, err := e.Explain(t.Context(), look(t, e), "fresh"); !errors.As(err, &missing) {
		t.Errorf("of a pod that nobody remembers it says %v", err)
	}
	e.cfg.Kept = func() ([]*corev1.Pod, error) { return []*corev1.Pod{up, fresh, leaves, over}, nil }
	for name, want := range map[string]string{
		"up": "default/up is Ready", "fresh": "default/fresh waits at sandbox", "leaves": `default/leaves waits at stop of container "app"`, "over": "default/over",
	} {
		if x := explained(t, e, name); !strings.HasPrefix(x.Summary, want) || strings.Contains(x.Summary, "not found") {
			t.Errorf("of %s it says %q, want %q", name, x.Summary, want)
		}
	}
	if x := explained(t, e, "over"); x.Phase != corev1.PodSucceeded || x.Blocks != nil {
		t.Errorf("of a pod that is over it says %+v", x)
	}
	if v := look(t, e); !slices.ContainsFunc(v.Notes, func(n string) bool { return strings.Contains(n, "as the daemon knew them last") }) {
		t.Errorf("nobody is told how old that is: %q", v.Notes)
	}
	e.cfg.Kept = func() ([]*corev1.Pod, error) { return nil, errors.New("spoilt") }
	if v := look(t, e); !slices.ContainsFunc(v.Notes, func(n string) bool { return strings.Contains(n, "spoilt") }) {
		t.Errorf("nobody is told that the cache cannot be read: %q", v.Notes)
	}
}

// TestExplainDead: without the daemon the same is worked out of what it left.
func TestExplainDead(t *testing.T) {
	up, fresh, needs := staticPod("up-node", "app"), staticPod("fresh-node", "app"), staticPod("needs-node", "app")
	up.Spec.Containers[0].ReadinessProbe = &corev1.Probe{}
	needs.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "db"}}}}
	sandbox := running(needs)
	sandbox.Containers = nil
	gone, old := running(staticPod("gone-node", "app")), running(fresh)
	old.UID = "old"
	rt := fakeRuntime{states: []pod.RuntimeState{running(up), sandbox, gone, old}}
	e := eye(t, "/nothing", rt, up, fresh, needs)
	e.cfg.Health = func() (map[string]pod.Health, error) {
		return map[string]pod.Health{strings.Repeat("a", 64): {Started: true, Ready: true}}, nil
	}
	e.cfg.Mounts = func(types.UID) ([]string, error) { return []string{"/busy"}, nil }
	for name, want := range map[string]string{
		"up":    "default/up-node is Ready",
		"needs": `default/needs-node is blocked at create of container "app": CreateContainerConfigError: secret "db" not found`,
		"fresh": "default/fresh-node waits at admission: NameInUse: an earlier pod of the same name (uid old)",
		"gone":  `default/gone-node waits at stop of container "app"`,
		"bad":   "bad is blocked at source: CannotUseManifest: /m/bad.yaml:3: unknown field",
	} {
		x := explained(t, e, name)
		if !strings.HasPrefix(x.Summary, want) {
			t.Errorf("of %s it says %q, want %q", name, x.Summary, want)
		}
		if (x.Earlier != nil) != (name == "fresh") {
			t.Errorf("of %s the earlier pod is %+v", name, x.Earlier)
		}
		if name != "up" && !strings.Contains(x.Summary, "The daemon does not answer") {
			t.Errorf("of %s it does not say that the daemon is dead: %q", name, x.Summary)
		}
	}
	e.cfg.Health = func() (map[string]pod.Health, error) { return nil, nil }
	if x := explained(t, e, "up"); x.Blocks == nil || x.Blocks.Gate != pod.GateProbes {
		t.Errorf("without the probe's verdict it says %q", x.Summary)
	}
	e.cfg.Cluster = true
	if x := explained(t, e, "gone"); x.Blocks == nil || x.Blocks.Gate != pod.GateSource || !strings.Contains(x.Summary, "whether the API server does") {
		t.Errorf("of a pod that may be the API server's it says %q", x.Summary)
	}
}
