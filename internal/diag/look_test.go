package diag

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
	"nodeagent/internal/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeRuntime holds what a runtime would.
type fakeRuntime struct {
	states []pod.RuntimeState
	err    error
}

func (f fakeRuntime) Snapshot(context.Context) ([]pod.RuntimeState, error) { return f.states, f.err }

var t0 = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func staticPod(name string, containers ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)}}
	for _, c := range containers {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: c, Image: "img-" + c})
	}
	p.Spec.RestartPolicy = corev1.RestartPolicyAlways
	return p
}

func running(p *corev1.Pod) pod.RuntimeState {
	s := pod.RuntimeState{UID: p.UID, Namespace: p.Namespace, Name: p.Name, Sandboxes: []pod.Sandbox{{ID: "sandbox", State: pod.SandboxReady, Created: t0}}}
	for i := range p.Spec.Containers {
		c := &p.Spec.Containers[i]
		s.Containers = append(s.Containers, pod.Container{
			ID: strings.Repeat(c.Name[:1], 64), Name: c.Name, SandboxID: "sandbox", State: pod.ContainerRunning, Pid: 77,
			Hash: pod.ContainerHash(c), Image: c.Image, Created: t0, Started: t0,
		})
	}
	return s
}

// serve is a daemon that answers with documents.
func serve(t *testing.T, documents map[string]any) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		doc, ok := documents[strings.TrimPrefix(r.URL.RequestURI(), "/v1/")]
		if !ok {
			doc, ok = documents[strings.TrimPrefix(r.URL.Path, "/v1/")]
		}
		if !ok {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(doc)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return socket
}

func eye(t *testing.T, socket string, r Runtime, wanted ...*corev1.Pod) *Eye {
	t.Helper()
	e, err := New(Config{Socket: socket, Runtime: r, NodeName: "node", Now: func() time.Time { return t0.Add(time.Minute) },
		Manifests: func(_ context.Context, node string) (source.Snapshot, error) {
			if node == "unreadable" {
				return source.Snapshot{}, errors.New("cannot read")
			}
			s := source.Snapshot{Problems: []source.Problem{{File: "/m/bad.yaml", Line: 3, Message: "unknown field"}}}
			for _, p := range wanted {
				q := *p
				if node != "node" { // as source names them
					q.Name = strings.TrimSuffix(q.Name, "node") + node
					q.UID = types.UID("uid-" + q.Name)
				}
				s.Pods = append(s.Pods, &q)
			}
			return s, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func look(t *testing.T, e *Eye) *View {
	t.Helper()
	v, err := e.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestDeadDaemonShowsTheSame(t *testing.T) {
	web, crash, late := staticPod("web-node", "app"), staticPod("crash-node", "app"), staticPod("late-node", "app")
	crashed := running(crash)
	crashed.Containers[0].State, crashed.Containers[0].ExitCode, crashed.Containers[0].Pid = pod.ContainerExited, 3, 0
	crashed.Containers[0].Finished, crashed.Containers[0].Backoff, crashed.Containers[0].Attempt = t0.Add(50*time.Second), 5*time.Minute, 4
	gone := running(staticPod("gone-node", "app"))
	states := []pod.RuntimeState{running(web), crashed, gone}
	v := look(t, eye(t, "/nonexistent", fakeRuntime{states: states}, web, crash, late))
	if v.Source != FromRuntime || len(v.Problems) != 1 || len(v.Notes) != 1 || !strings.Contains(v.Notes[0], "the daemon does not answer") {
		t.Errorf("the view is %+v", v)
	}
	got := map[string]string{}
	for _, p := range v.Pods {
		got[p.Name] = p.Status
	}
	for name, want := range map[string]string{"web-node": "Running", "crash-node": "CrashLoopBackOff", "late-node": "ContainerCreating", "gone-node": "NotWanted"} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	p, _, err := v.Find("crash")
	if err != nil || len(p.Containers) != 1 || p.Restarts != 4 || !strings.HasPrefix(p.Containers[0].Wait, "CrashLoopBackOff: back-off 5m") || p.Message == "" {
		t.Errorf("the crashed pod is %+v, %v", p, err)
	}
}

func TestAnotherNodeName(t *testing.T) {
	web := staticPod("web-node", "app")
	found := running(staticPod("web-other", "app"))
	v := look(t, eye(t, "/nonexistent", fakeRuntime{states: []pod.RuntimeState{found}}, web))
	if len(v.Pods) != 1 || v.Pods[0].Name != "web-other" || !v.Pods[0].Wanted {
		t.Errorf("the pods are %+v", v.Pods)
	}
	unrelated := running(staticPod("db-other", "app"))
	if v := look(t, eye(t, "/nonexistent", fakeRuntime{states: []pod.RuntimeState{unrelated}}, web)); len(v.Pods) != 2 {
		t.Errorf("the pods are %+v", v.Pods)
	}
}

func TestDaemonAloneAndNobody(t *testing.T) {
	web := staticPod("web-node", "app", "side")
	web.Status.Phase = corev1.PodRunning
	web.Status.ContainerStatuses = []corev1.ContainerStatus{
		{Name: "app", Ready: true, ContainerID: "containerd://aaaa", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
		{Name: "side", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "no such host"}}},
	}
	socket := serve(t, map[string]any{"pods": corev1.PodList{Items: []corev1.Pod{*web}}, "problems": []source.Problem{}})
	v := look(t, eye(t, socket, fakeRuntime{err: errors.New("down")}))
	if v.Source != FromDaemon || len(v.Pods) != 1 || v.Pods[0].Status != "ImagePullBackOff" || v.Pods[0].Message != "no such host" ||
		v.Pods[0].Ready != 1 || v.Pods[0].Total != 2 || v.Pods[0].Containers[0].ID != "aaaa" || len(v.Notes) != 1 {
		t.Errorf("the view is %+v", v)
	}
	if _, err := eye(t, "/nonexistent", fakeRuntime{err: errors.New("down")}).Look(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("with nobody there: %v", err)
	}
	if _, err := eye(t, serve(t, nil), fakeRuntime{err: errors.New("down")}).Look(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("with a daemon that knows nothing: %v", err)
	}
}

// TestStuckDaemon: one that takes the connection and says nothing is as good as
// dead.
func TestStuckDaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	began := time.Now()
	v := look(t, eye(t, socket, fakeRuntime{}))
	if v.Source != FromRuntime || time.Since(began) > 2*daemonTimeout {
		t.Errorf("it took %v to a view from the %s", time.Since(began), v.Source)
	}
}

func TestFind(t *testing.T) {
	v := &View{Pods: []Pod{
		{Namespace: "default", Name: "web-node", UID: "aaa1", Wanted: true, Created: &t0, Containers: []Container{{ID: "feed0123", Name: "app", Latest: true}, {ID: "feed9999", Name: "side", Latest: true}}},
		{Namespace: "default", Name: "web-node", UID: "aaa2", Created: &t0},
		{Namespace: "other", Name: "web-node", UID: "bbb1", Wanted: true},
		{Namespace: "default", Name: "db-node", UID: "ccc1", Wanted: true, Containers: []Container{{ID: "beef", Name: "init", Init: true, Latest: true}, {Name: "db", Latest: true}}},
	}}
	for name, want := range map[string]string{
		"default/web-node": "aaa1", "other/web-node": "bbb1", "aaa2": "aaa2", "db": "ccc1", "ccc": "ccc1", "default/d": "ccc1", "other/": "bbb1", "feed0": "aaa1", "default/web": "aaa1",
	} {
		if p, _, err := v.Find(name); err != nil || p.UID != want {
			t.Errorf("Find(%s) = %v, %v, want %s", name, p, err, want)
		}
	}
	var missing *NotFoundError
	var ambiguous *AmbiguousError
	for _, name := range []string{"", "none", "fee", "default/web-node-x"} {
		if _, _, err := v.Find(name); !errors.As(err, &missing) {
			t.Errorf("Find(%q): %v, want not found", name, err)
		}
	}
	for _, name := range []string{"web", "web-node", "feed", "default/"} {
		if _, _, err := v.Find(name); !errors.As(err, &ambiguous) {
			t.Errorf("Find(%q): %v, want ambiguous", name, err)
		}
	}
	if _, c, _ := v.Find("feed9"); c == nil || c.Name != "side" {
		t.Errorf("the container of its id is %v", c)
	}
	if _, err := v.Pods[0].Container(""); !errors.As(err, &ambiguous) || !strings.Contains(err.Error(), "app, side") {
		t.Errorf("of two containers: %v", err)
	}
	if c, err := v.Pods[3].Container(""); err != nil || c.Name != "db" {
		t.Errorf("an init container makes it %v, %v", c, err)
	}
	if c, err := v.Pods[3].Container("init"); err != nil || c.ID != "beef" {
		t.Errorf("init by name: %v, %v", c, err)
	}
	if _, err := v.Pods[0].Container("none"); !errors.As(err, &missing) {
		t.Errorf("no such container: %v", err)
	}
}

func TestLogPath(t *testing.T) {
	root := t.TempDir()
	p := &Pod{Namespace: "default", Name: "web-node", UID: "u"}
	dir := filepath.Join(root, "default_web-node_u", "app")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"3.log", "4.log", "4.log.20261120-120000", "evil.log"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name     string
		c        Container
		previous bool
		want     string // "" for not found
	}{
		{"newest", Container{ID: "x", Attempt: 4}, false, "4.log"},
		{"before", Container{ID: "x", Attempt: 4}, true, "3.log"},
		{"waits for its restart", Container{ID: "x", Attempt: 4, Wait: "CrashLoopBackOff"}, true, "4.log"},
		{"not known, by the files", Container{}, false, "4.log"},
		{"not known, before", Container{}, true, "3.log"},
		{"none before", Container{ID: "x", Attempt: 3}, true, ""},
		{"not written yet", Container{ID: "x", Attempt: 5}, false, ""},
		{"never started", Container{Name: "other"}, false, ""},
	} {
		if c.c.Name == "" {
			c.c.Name = "app"
		}
		got, err := LogPath(root, p, &c.c, c.previous)
		var missing *NotFoundError
		if c.want == "" && !errors.As(err, &missing) {
			t.Errorf("%s: %s, %v, want not found", c.name, got, err)
		}
		if c.want != "" && (err != nil || filepath.Base(got) != c.want) {
			t.Errorf("%s: %s, %v, want %s", c.name, got, err, c.want)
		}
	}
	v, err := LookAtLogs(root)
	if err != nil || len(v.Pods) != 1 || v.Pods[0].FullName() != "default/web-node" || len(v.Pods[0].Containers) != 1 {
		t.Errorf("by the files there are %+v, %v", v, err)
	}
}
