package server

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/logs"
	"nodeagent/internal/pod"
)

// logged is a pod whose container "app" runs for the second time; the log of that
// run has been rotated twice.
func (b *bed) logged(t testing.TB) (p *corev1.Pod, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "ns_web_u1", "app")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name string, from, to int) {
		var text strings.Builder
		for i := from; i <= to; i++ {
			stream := "stdout"
			if i%2 == 0 {
				stream = "stderr"
			}
			fmt.Fprintf(&text, "2026-01-02T03:04:%02d.000000000Z %s F line %d\n", i, stream, i)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text.String()), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	write("0.log", 50, 51)
	write("1.log.20260102-030402", 1, 2)
	write("1.log.20260102-030404", 3, 4)
	write("1.log", 5, 6)
	p = &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "u1"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}, {Name: "slow"}, {Name: "gone"}}},
		Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{
			{Name: "app", Image: "i", ContainerID: "containerd://run1", RestartCount: 1,
				State:                corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
				LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: "containerd://run0"}}},
			{Name: "slow", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}},
			{Name: "gone", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: "containerd://lost"}}},
		}},
	}
	b.node.mu.Lock()
	defer b.node.mu.Unlock()
	b.node.all = append(b.node.all, p)
	b.node.states["u1"] = pod.RuntimeState{UID: "u1", Containers: []pod.Container{
		{ID: "run0", Name: "app", State: pod.ContainerExited, LogPath: filepath.Join(dir, "0.log")},
		{ID: "run1", Name: "app", State: pod.ContainerRunning, LogPath: filepath.Join(dir, "1.log")},
	}}
	return p, dir
}

func TestContainerLogs(t *testing.T) {
	b := newBed(t, nil).run(t)
	b.logged(t)
	boss := b.boss(t)
	lines := func(n ...int) string {
		var text strings.Builder
		for _, i := range n {
			fmt.Fprintf(&text, "line %d\n", i)
		}
		return text.String()
	}
	for _, c := range []struct {
		path string
		code int
		body string // or a part of it where the code is not 200
	}{
		{"ns/web/app", 200, lines(1, 2, 3, 4, 5, 6)},
		{"ns/web/app/", 200, lines(1, 2, 3, 4, 5, 6)},
		{"ns/web/app?tailLines=3", 200, lines(4, 5, 6)},
		{"ns/web/app?tail=3&tailLines=1", 200, lines(4, 5, 6)},
		{"ns/web/app?tail=all&tailLines=1", 200, lines(1, 2, 3, 4, 5, 6)},
		{"ns/web/app?tailLines=0", 200, ""},
		{"ns/web/app?tailLines=9223372036854775807", 200, lines(1, 2, 3, 4, 5, 6)},
		{"ns/web/app?previous=true", 200, lines(50, 51)},
		{"ns/web/app?previous=true&follow=true", 200, lines(50, 51)},
		{"ns/web/app?previous=false&follow=0", 200, lines(1, 2, 3, 4, 5, 6)},
		{"ns/web/app?limitBytes=9", 200, "line 1\nli"},
		{"ns/web/app?stream=Stderr", 200, lines(2, 4, 6)},
		{"ns/web/app?stream=Stdout", 200, lines(1, 3, 5)},
		{"ns/web/app?stream=All&tailLines=1", 200, lines(6)},
		{"ns/web/app?sinceTime=2026-01-02T03:04:05Z", 200, lines(5, 6)},
		{"ns/web/app?sinceTime=2026-01-02T04:04:05%2B01:00&timestamps", 200, "2026-01-02T03:04:05.000000000Z line 5\n2026-01-02T03:04:06.000000000Z line 6\n"},
		{"ns/web/app?sinceSeconds=9223372036854775807", 200, lines(1, 2, 3, 4, 5, 6)},
		{"ns/web/app?unknown=x", 200, lines(1, 2, 3, 4, 5, 6)},

		{"ns/web/app?tailLines=x", 400, "tailLines"},
		{"ns/web/app?sinceTime=yesterday", 400, "sinceTime"},
		{"ns/web/app?tailLines=-1", 422, "tailLines"},
		{"ns/web/app?limitBytes=0", 422, "limitBytes"},
		{"ns/web/app?sinceSeconds=0", 422, "sinceSeconds"},
		{"ns/web/app?sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z", 422, "only one"},
		{"ns/web/app?stream=stdout", 422, "stream"},
		{"ns/web/app?stream=Stdout&tailLines=1", 422, "tailLines"},
		{"ns/web/slow", 400, `container "slow" in pod "web" is waiting to start: ContainerCreating`},
		{"ns/web/slow?previous=true", 400, `previous terminated container "slow" in pod "web" not found`},
		{"ns/web/gone", 404, "no log any more"},
		{"ns/web/none", 404, `container "none" not found in pod "web"`},
		{"ns/other/app", 404, `pod "other" does not exist`},
		{"other/web/app", 404, `pod "web" does not exist`},
		{"ns/web", 404, ""},
		{"ns/web/app/more", 404, ""},
		{"ns/web/a%2Fb", 404, ""},
		{"ns/web/%2E%2E", 404, ""},
		{"ns//app", 404, ""},
		{"ns/web/..%00", 400, "such a name"},
		{"ns/web/a_b", 400, "such a name"},
		{"n.s/web/app", 400, "such a name"},
		{"ns/w%0Aeb/app", 400, "such a name"},
	} {
		got := ask(t, boss, http.MethodGet, b.url+"/containerLogs/"+c.path)
		if got.code != c.code || c.code == 200 && got.body != c.body || !strings.Contains(got.body, c.body) {
			t.Errorf("%s: %d %q, want %d %q", c.path, got.code, got.body, c.code, c.body)
		}
	}
	if got := ask(t, boss, http.MethodPost, b.url+"/containerLogs/ns/web/app"); got.code != http.StatusMethodNotAllowed || got.head.Get("Allow") != "GET" {
		t.Errorf("POST: %d", got.code)
	}
}

// TestLogOfALink: what a pod put in the place of its log is not shown.
func TestLogOfALink(t *testing.T) {
	b := newBed(t, nil).run(t)
	_, dir := b.logged(t)
	secret := filepath.Join(t.TempDir(), "shadow")
	if err := os.WriteFile(secret, []byte("2026-01-02T03:04:05.000000000Z stdout F root:secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	show := func(what string) {
		t.Helper()
		got := ask(t, b.boss(t), http.MethodGet, b.url+"/containerLogs/ns/web/app?previous=true")
		if got.code != http.StatusInternalServerError || strings.Contains(got.body, "secret") {
			t.Errorf("%s: %d %q", what, got.code, got.body)
		}
	}
	replace := func(name string, with func(string) error) {
		t.Helper()
		if err := os.RemoveAll(name); err != nil {
			t.Fatal(err)
		}
		if err := with(name); err != nil {
			t.Fatal(err)
		}
	}
	log := filepath.Join(dir, "0.log")
	replace(log, func(n string) error { return os.Symlink(secret, n) })
	show("a link")
	replace(log, func(n string) error { return os.Mkdir(n, 0o755) })
	show("a directory")
	aside := filepath.Join(t.TempDir(), "app")
	if err := os.MkdirAll(aside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(secret, filepath.Join(aside, "0.log")); err != nil {
		t.Skip(err)
	}
	replace(dir, func(n string) error { return os.Symlink(aside, n) })
	show("a link in the place of the directory")
}

// TestFollowedLog: it goes on over rotations, over both protocols, and ends when the
// container does, with the last line.
func TestFollowedLog(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		b := newBed(t, nil).run(t)
		p, dir := b.logged(t)
		w, err := logs.New(logs.Config{Path: filepath.Join(dir, "1.log"), MaxSize: 200, MaxFiles: 10})
		if err != nil {
			t.Fatal(err)
		}
		s := w.Stream(logs.Stdout)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/containerLogs/ns/web/app?follow=true&tailLines=0", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := b.client(t, h2, b.ca.client(t, "boss")).Do(req) // returns although there is no line yet
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewScanner(resp.Body)
		for i := range 20 { // rotates every few lines
			s.Write(fmt.Appendf(nil, "new %d %s\n", i, strings.Repeat("x", 20)))
			if !in.Scan() || !strings.HasPrefix(in.Text(), fmt.Sprintf("new %d ", i)) {
				t.Fatalf("line %d (HTTP/%d): %q, %v", i, resp.ProtoMajor, in.Text(), in.Err())
			}
		}
		s.Write([]byte("the last\n"))
		b.node.end(p)
		rest := ""
		for in.Scan() {
			rest += in.Text()
		}
		if rest != "the last" || in.Err() != nil {
			t.Errorf("at its end it shows %q, %v", rest, in.Err())
		}
		resp.Body.Close()
		_ = w.Close()
	}
}

// TestFollowersLeaveNothing: a thousand clients that go away in the middle.
func TestFollowersLeaveNothing(t *testing.T) {
	b := newBed(t, func(cfg *NodeAPIConfig) {
		cfg.limits = limits{}.orUsual()
		cfg.limits.streams, cfg.limits.userStreams = 20, 20
	})
	b.logged(t)
	b.reviewer.set(func() { b.reviewer.tokens["good"] = "boss" })
	open := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	follow := func(ctx context.Context, began func()) {
		defer func() { _ = recover() }() // it breaks the connection off
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/containerLogs/ns/web/app?follow=true", nil)
		r.Header.Set("Authorization", "Bearer good")
		b.ServeHTTP(&tellsBegin{ResponseRecorder: httptest.NewRecorder(), began: sync.OnceFunc(began)}, r)
	}
	round := func() {
		var all, begun sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for range 20 {
			begun.Add(1)
			all.Go(func() { follow(ctx, begun.Done) })
		}
		begun.Wait()
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/containerLogs/ns/web/app", nil)
		r.Header.Set("Authorization", "Bearer good")
		if b.ServeHTTP(w, r); w.Code != http.StatusTooManyRequests {
			t.Errorf("one more than all streams: %d", w.Code)
		}
		cancel()
		all.Wait()
	}
	round()
	before := open()
	for range 50 {
		round()
	}
	if after := open(); after > before+5 {
		t.Errorf("%d descriptors, before %d", after, before)
	}
	if b.streams.all != 0 || len(b.streams.by) != 0 || len(b.followers.by) != 0 {
		t.Errorf("it leaves %d streams, %v, %d followers", b.streams.all, b.streams.by, len(b.followers.by))
	}
}

type tellsBegin struct {
	*httptest.ResponseRecorder
	began func()
}

func (w *tellsBegin) FlushError() error { w.began(); return nil }

// TestTwoPodsOfOneName: the one that goes on is meant.
func TestTwoPodsOfOneName(t *testing.T) {
	at := func(uid types.UID, minute int, deleted bool) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid, Namespace: "ns", Name: "web", CreationTimestamp: metav1.Unix(int64(60*minute), 0)},
			Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "c"}}}}
		if deleted {
			p.DeletionTimestamp = new(metav1.Unix(3600, 0))
		}
		return p
	}
	for want, pods := range map[types.UID][]*corev1.Pod{
		"live": {at("live", 1, false), at("old", 2, true)},
		"late": {at("late", 2, false), at("early", 1, false)},
		"last": {at("early", 1, true), at("last", 2, true)},
	} {
		for range 2 {
			a := &NodeAPI{cfg: NodeAPIConfig{Pods: &fakeNode{all: pods}}}
			if p, _, err := a.findPod("ns", "web", "c"); err != nil || p.UID != want {
				t.Errorf("%v is found, %v, want %s", p, err, want)
			}
			pods[0], pods[1] = pods[1], pods[0]
		}
	}
}

// TestLoggedRun holds the choice of the run against kubelet's.
func TestLoggedRun(t *testing.T) {
	ended := func(id string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: id}}
	}
	waiting := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
	}
	for name, c := range map[string]struct {
		now, last corev1.ContainerState
		previous  bool
		want      string // id or error
	}{
		"ended":                      {now: ended("containerd://a"), want: "a"},
		"ended, previous":            {now: ended("containerd://a"), last: ended("containerd://b"), previous: true, want: "b"},
		"ended before it had an id":  {now: ended(""), last: ended("containerd://b"), want: "b"},
		"never had an id":            {now: ended(""), want: `container "c" in pod "p" is terminated`},
		"back-off":                   {now: waiting("CrashLoopBackOff"), last: ended("containerd://b"), want: "b"},
		"back-off, previous":         {now: waiting("CrashLoopBackOff"), last: ended("containerd://b"), previous: true, want: "b"},
		"image":                      {now: waiting("ErrImagePull"), want: `container "c" in pod "p" is waiting to start: image can't be pulled`},
		"image again":                {now: waiting("ImagePullBackOff"), want: `container "c" in pod "p" is waiting to start: trying and failing to pull image`},
		"nothing known":              {want: `container "c" in pod "p" is waiting to start: no logs yet`},
		"previous that never was":    {now: waiting("x"), previous: true, want: `previous terminated container "c" in pod "p" not found`},
		"last that never had an id":  {now: waiting("x"), last: ended(""), want: `container "c" in pod "p" is terminated`},
		"previous of one without id": {now: waiting("x"), last: ended(""), previous: true, want: `previous terminated container "c" in pod "p" not found`},
	} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Status: corev1.PodStatus{
			InitContainerStatuses: []corev1.ContainerStatus{{Name: "c", State: c.now, LastTerminationState: c.last}},
		}}
		got, err := loggedRun(p, "c", c.previous)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if _, err := loggedRun(&corev1.Pod{}, "c", false); err == nil {
		t.Error("a container without a status has a log")
	}
}

// FuzzLogQuery: whatever is asked, the options are ones that a log can be read by.
func FuzzLogQuery(f *testing.F) {
	for _, q := range []string{"follow&tailLines=3", "sinceSeconds=9223372036&tail=all", "sinceTime=0000-01-01T00:00:00Z", "stream=Stderr", "limitBytes=1&previous=%zz"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, text string) {
		q, _ := url.ParseQuery(text)
		o, err := parseLogQuery(q, time.Unix(1e9, 0))
		if err == nil && (o.read.Tail < -1 || o.read.Limit < 0) {
			t.Errorf("%q asks for %+v", text, o)
		}
	})
}
