package object

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/object/objecttest"
	"nodeagent/internal/pod"
)

// bench is a Store that runs, on an API server in memory.
type bench struct {
	t       *testing.T
	server  *objecttest.Server
	store   *Store
	mu      sync.Mutex
	changed []pod.ObjectRef
	log     strings.Builder
	rate    *rate.Limiter
}

// begin starts a Store in the bubble of the test; it ends with the test.
func begin(t *testing.T, server *objecttest.Server) *bench {
	b := &bench{t: t, server: server}
	b.start(server)
	return b
}

func (b *bench) start(api API) {
	var err error
	b.store, err = New(Config{
		API: api, Rate: b.rate, Logger: slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug})),
		NodeLabels: func() map[string]string { return map[string]string{"kubernetes.io/hostname": "node"} },
		Changed: func(ref pod.ObjectRef) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.changed = append(b.changed, ref)
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() { done <- b.store.Run(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			b.t.Errorf("run ended with %v", err)
		}
	})
}

// Write takes the log.
func (b *bench) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.Write(text)
}

// news returns what Changed was called with since the last time.
func (b *bench) news() []pod.ObjectRef {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	news := b.changed
	b.changed = nil
	return news
}

func (b *bench) wantNews(what string, want ...pod.ObjectRef) {
	b.t.Helper()
	if got := b.news(); !slices.Equal(got, want) {
		b.t.Errorf("%s: changed was called with %v, want %v", what, got, want)
	}
}

// value is one key of a ConfigMap, or the error.
func (b *bench) value(name string) string {
	m, err := b.store.ConfigMap("ns", name)
	if err != nil {
		return err.Error()
	}
	return m.Data["k"]
}

func (b *bench) want(what, name, want string) {
	b.t.Helper()
	synctest.Wait()
	if got := b.value(name); got != want {
		b.t.Errorf("%s: %s is %q, want %q", what, name, got, want)
	}
}

func (b *bench) wantWatches(what string, want int) {
	b.t.Helper()
	synctest.Wait()
	if got := b.server.Watches(); got != want {
		b.t.Errorf("%s: there are %d watches, want %d", what, got, want)
	}
}

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Annotations: map[string]string{"a": "b"}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}}},
		Data:       map[string]string{"k": value},
	}
}

func ref(name string) pod.ObjectRef {
	return pod.ObjectRef{Kind: pod.ConfigMapKind, Namespace: "ns", Name: name}
}

// user is a pod that refers to the ConfigMaps.
func user(name string, configMaps ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name)}}
	p.Spec.ServiceAccountName = "account"
	for _, m := range configMaps {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: m, VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: m}}}})
	}
	return p
}

func isAbsent(err error) bool {
	var lacks interface{ Absent() bool }
	return errors.As(err, &lacks) && lacks.Absent()
}

// TestOneWatchAnObject: an object is watched once, from the first pod that refers
// to it to the last.
func TestOneWatchAnObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := begin(t, &objecttest.Server{})
		b.server.Put(configMap("a", "1"))
		b.server.Put(configMap("b", "1"))
		one, two := user("one", "a"), user("two", "a", "b")
		b.store.Keep([]*corev1.Pod{one, two})
		b.want("at first", "a", "1")
		b.want("at first", "b", "1")
		b.wantWatches("two pods, two objects", 2)
		b.wantNews("nobody was told anything else before")

		b.server.Put(configMap("a", "2"))
		b.wantNews("an update", ref("a"))
		b.want("an update", "a", "2")
		b.store.Keep([]*corev1.Pod{two})
		b.wantWatches("one of two is gone", 2)
		b.server.Delete(ref("a"))
		b.wantNews("a deletion", ref("a"))
		if _, err := b.store.ConfigMap("ns", "a"); !apierrors.IsNotFound(err) {
			t.Errorf("a deleted object is told as %v", err)
		}
		b.server.Put(configMap("a", "3"))
		b.wantNews("it came back", ref("a"))
		b.want("it came back", "a", "3")

		later := two.DeepCopy() // a container was added to the pod: other references
		later.Spec.Volumes = later.Spec.Volumes[1:]
		b.store.Keep([]*corev1.Pod{later})
		b.wantWatches("a pod that refers to less", 1)
		ended := later.DeepCopy()
		ended.Status.Phase = corev1.PodSucceeded
		b.store.Keep([]*corev1.Pod{ended})
		b.wantWatches("no pod runs", 0)
		if _, err := b.store.ConfigMap("ns", "b"); apierrors.IsNotFound(err) || !isAbsent(err) {
			t.Errorf("an object that is not kept is told as %v", err)
		}
		if n := len(b.store.objects) + len(b.store.pods); n != 0 {
			t.Errorf("%d things are kept for nobody", n)
		}
		b.store.Keep([]*corev1.Pod{one})
		b.want("read anew", "a", "3")
	})
}

// TestOnlyWhatIsRead: of an object nothing is kept that nobody reads.
func TestOnlyWhatIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := begin(t, &objecttest.Server{})
		b.server.Put(configMap("a", "1"))
		b.store.Keep([]*corev1.Pod{user("one", "a")})
		synctest.Wait()
		m, err := b.store.ConfigMap("ns", "a")
		if err != nil || m.Annotations != nil || m.ManagedFields != nil || m.Name != "a" || m.Data["k"] != "1" {
			t.Errorf("what is kept is %v, %v", m, err)
		}
	})
}

// TestUnknownIsNotAbsent: as long as the API server has not told, an object is
// neither there nor not there.
func TestUnknownIsNotAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := errors.New("connection refused")
		var mu sync.Mutex
		set := func(err error) { mu.Lock(); away = err; mu.Unlock() }
		server := &objecttest.Server{Fault: func(context.Context, string, pod.ObjectRef) error {
			mu.Lock()
			defer mu.Unlock()
			return away
		}}
		b := begin(t, server)
		p := user("one", "a", "none")
		b.store.Keep([]*corev1.Pod{p})
		b.store.Await(t.Context(), p) // not for ever: an attempt has ended
		for _, name := range []string{"a", "none"} {
			_, err := b.store.ConfigMap("ns", name)
			if apierrors.IsNotFound(err) || !isAbsent(err) || !strings.Contains(err.Error(), "connection refused") {
				t.Errorf("%s is told as %v", name, err)
			}
		}
		b.wantNews("before anything was told")
		set(apierrors.NewForbidden(corev1.Resource("configmaps"), "a", errors.New("no relationship found")))
		time.Sleep(lastWait * 2)
		if got := b.news(); len(got) != 2 {
			t.Errorf("another reason is told as %v, want both once", got)
		}
		if got := b.value("a"); !strings.Contains(got, "no relationship found") {
			t.Errorf("a forbidden object is told as %q", got)
		}
		b.value("none")
		server.Put(configMap("a", "1"))
		set(nil)
		time.Sleep(lastWait * 2)
		if got := b.news(); len(got) != 2 {
			t.Errorf("the answers are told as %v, want both once", got)
		}
		b.want("the answer", "a", "1")
		if _, err := b.store.ConfigMap("ns", "none"); !apierrors.IsNotFound(err) {
			t.Errorf("what does not exist is told as %v", err)
		}
		server.Put(configMap("none", "1"))
		b.wantNews("it came", ref("none"))
		b.want("it came", "none", "1")
	})
}

// TestNotFoundOfSomebodyElse: a 404 that does not speak of the object is no word
// of the API server on it.
func TestNotFoundOfSomebodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		proxy := apierrors.NewGenericServerResponse(404, "get", corev1.Resource("configmaps"), "a", "404 page not found", 0, true)
		b := begin(t, &objecttest.Server{Fault: func(context.Context, string, pod.ObjectRef) error { return proxy }})
		b.store.Keep([]*corev1.Pod{user("one", "a")})
		synctest.Wait()
		if _, err := b.store.ConfigMap("ns", "a"); apierrors.IsNotFound(err) || !isAbsent(err) {
			t.Errorf("it is told as %v", err)
		}
	})
}

// TestImmutable: one that never changes costs one request, and no watch.
func TestImmutable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := begin(t, &objecttest.Server{})
		m := configMap("a", "1")
		m.Immutable = new(true)
		b.server.Put(m)
		b.server.Put(configMap("b", "1"))
		b.store.Keep([]*corev1.Pod{user("one", "a", "b")})
		b.want("immutable", "a", "1")
		b.wantWatches("one of two is immutable", 1)
		later := configMap("b", "2")
		later.Immutable = new(true)
		b.server.Put(later)
		b.want("the last change", "b", "2")
		b.wantWatches("both are immutable", 0)
		time.Sleep(24 * time.Hour)
		if n := b.server.Calls("get") + b.server.Calls("watch") + b.server.Calls("list"); n != 3 {
			t.Errorf("two objects took %d requests in a day, want 3", n)
		}
	})
}

// TestAuthorizerIsSlow: that a new pod's objects are forbidden at first costs the
// pod a moment and no more.
func TestAuthorizerIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		left := 3
		b := begin(t, &objecttest.Server{Fault: func(_ context.Context, verb string, _ pod.ObjectRef) error {
			mu.Lock()
			defer mu.Unlock()
			if left--; left >= 0 {
				return apierrors.NewForbidden(corev1.Resource("configmaps"), "a", errors.New("no relationship found"))
			}
			return nil
		}})
		b.server.Put(configMap("a", "1"))
		b.store.Keep([]*corev1.Pod{user("one", "a")})
		b.want("at first", "a", `ConfigMap ns/a could not be read from the API server yet: configmaps "a" is forbidden: no relationship found`)
		time.Sleep(1100 * time.Millisecond) // 0.15 + 0.3 + 0.6 at most
		b.want("a second later", "a", "1")
		b.wantNews("it was read", ref("a"))

		mu.Lock()
		left = 1000
		mu.Unlock()
		b.store.Keep([]*corev1.Pod{user("two", "c")})
		time.Sleep(10 * time.Minute)
		mu.Lock()
		left = 0
		mu.Unlock()
		b.server.Put(configMap("c", "1"))
		b.store.Keep([]*corev1.Pod{user("two", "c"), user("three", "c")})
		b.want("another pod came, so it was tried at once", "c", "1")
	})
}

// TestHoursAway: what was read stays true while there is no API server, the
// requests are few, and what changed meanwhile is seen afterwards.
func TestHoursAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		away := false
		b := begin(t, &objecttest.Server{Fault: func(context.Context, string, pod.ObjectRef) error {
			mu.Lock()
			defer mu.Unlock()
			if away {
				return errors.New("connection refused")
			}
			return nil
		}})
		b.server.Put(configMap("a", "1"))
		b.server.Put(configMap("gone", "1"))
		b.store.Keep([]*corev1.Pod{user("one", "a", "gone")})
		b.want("before", "a", "1")
		b.want("before", "gone", "1")
		mu.Lock()
		away = true
		mu.Unlock()
		calls := func() int { return b.server.Calls("get") + b.server.Calls("watch") + b.server.Calls("list") }
		b.server.Break(nil)
		before := calls()
		const hours = 72
		time.Sleep(hours * time.Hour)
		b.want("after three days", "a", "1")
		b.wantNews("nothing is known to have changed")
		if n := calls() - before; n > 2*hours*3600/15 {
			t.Errorf("%d requests in %d hours for two objects", n, hours)
		}
		b.server.Put(configMap("a", "2"))
		b.server.Delete(ref("gone"))
		b.server.Compact()
		mu.Lock()
		away = false
		mu.Unlock()
		time.Sleep(2 * lastWait)
		b.want("afterwards", "a", "2")
		if got := b.news(); len(got) != 2 {
			t.Errorf("afterwards changed was called with %v, want both", got)
		}
		if _, err := b.store.ConfigMap("ns", "gone"); !apierrors.IsNotFound(err) {
			t.Errorf("what was deleted meanwhile is told as %v", err)
		}
		b.wantWatches("afterwards", 2)
	})
}

// TestGoesOn: a watch that ends goes on where it was, without reading again;
// where the server no longer knows that version, it begins anew.
func TestGoesOn(t *testing.T) {
	for _, old := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := begin(t, &objecttest.Server{Old: old})
			b.server.Put(configMap("a", "1"))
			b.store.Keep([]*corev1.Pod{user("one", "a")})
			time.Sleep(time.Minute)
			b.want("at first", "a", "1")
			reads := func() int { return b.server.Calls("get") + b.server.Calls("list") }
			before := reads()
			b.server.Compact() // only the bookmark's version is known after it
			b.server.Mark()
			synctest.Wait()
			b.server.Break(nil)
			b.server.Put(configMap("a", "2"))
			time.Sleep(time.Minute)
			b.want("the watch ended", "a", "2")
			if reads() != before {
				t.Error("it was read anew where a watch could go on")
			}
			b.server.Break(apierrors.NewResourceExpired("too old resource version"))
			b.server.Put(configMap("a", "3"))
			time.Sleep(time.Minute)
			b.want("expired", "a", "3")
			b.server.Break(nil)
			b.server.Delete(ref("a"))
			b.server.Compact()
			time.Sleep(time.Minute)
			if _, err := b.store.ConfigMap("ns", "a"); !apierrors.IsNotFound(err) {
				t.Errorf("deleted while the watch was broken: %v", err)
			}
			if reads() != before+2 {
				t.Errorf("it was read %d times more, want 2", reads()-before)
			}
			b.wantWatches("in the end", 1)
		})
	}
}

// TestCalmWatch: in a day a watch that nothing happens to is opened anew some
// times only.
func TestCalmWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := begin(t, &objecttest.Server{})
		b.server.Put(configMap("a", "1"))
		b.store.Keep([]*corev1.Pod{user("one", "a")})
		time.Sleep(24 * time.Hour)
		if n := b.server.Calls("watch"); n > 24*3 || n < 24 {
			t.Errorf("a watch was opened %d times in a day", n)
		}
		b.server.Put(configMap("a", "2"))
		b.want("after a day", "a", "2")
	})
}

// TestSilent: a watch that says nothing, not even where it is, is of a server that is
// dead behind a proxy; another one goes on from there.
func TestSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := begin(t, &objecttest.Server{})
		b.server.Put(configMap("a", "1"))
		b.server.Put(service("ns", "db", "10.0.0.3"))
		b.store.Keep([]*corev1.Pod{user("one", "a")})
		s := runServices(t, b.server)
		time.Sleep(5 * time.Minute)
		reads := b.server.Calls("get") + b.server.Calls("list")
		b.server.Mute()
		b.server.Put(configMap("a", "2"))
		b.server.Put(service("ns", "db", "10.0.0.4"))
		time.Sleep(2 * time.Minute)
		b.want("behind a watch that is silent", "a", "2")
		if got := hosts(t, s, "ns", true)["DB_SERVICE_HOST"]; got != "10.0.0.4" {
			t.Errorf("behind a watch that is silent the service is at %q", got)
		}
		if n := b.server.Calls("get") + b.server.Calls("list") - reads; n != 0 {
			t.Errorf("%d reads, where a watch goes on", n)
		}
		b.wantWatches("in the end", 2)
	})
}

// TestOlderIsNotTaken: a watch from a cache that lags does not bring back what
// was.
func TestOlderIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &objecttest.Server{}
		b := begin(t, server)
		old := server.Put(configMap("a", "1")).(*corev1.ConfigMap)
		server.Put(configMap("a", "2"))
		b.store.Keep([]*corev1.Pod{user("one", "a")})
		b.want("at first", "a", "2")
		server.Replay(old)
		b.want("an old event", "a", "2")
		b.wantNews("an old event")
	})
}

// TestBound: however many objects are asked for, only some are at once, and a
// server that never answers ends no more than those that asked it.
func TestBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		hole := true
		b := begin(t, &objecttest.Server{Fault: func(ctx context.Context, _ string, _ pod.ObjectRef) error {
			mu.Lock()
			h := hole
			mu.Unlock()
			if !h {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}})
		var all []*corev1.Pod
		for i := range 200 {
			name := fmt.Sprint("m", i)
			b.server.Put(configMap(name, "1"))
			all = append(all, user(name, name))
		}
		b.store.Keep(all)
		time.Sleep(10 * time.Minute)
		if n := b.server.Most(); n != connecting {
			t.Errorf("%d requests were under way at once, want %d", n, connecting)
		}
		if got := b.value("m0"); !strings.Contains(got, errNoAnswer.Error()) {
			t.Errorf("an object of a server that does not answer is told as %q", got)
		}
		mu.Lock()
		hole = false
		mu.Unlock()
		time.Sleep(2 * time.Minute)
		for i := range 200 {
			b.want("the server is back", fmt.Sprint("m", i), "1")
		}
		b.wantWatches("the server is back", 200)
		b.store.Keep(nil)
		b.wantWatches("no pods", 0)
	})
}

// TestAwait: who starts a pod waits until its objects were read, and need not be
// woken then.
func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		b := begin(t, &objecttest.Server{Fault: func(ctx context.Context, verb string, _ pod.ObjectRef) error {
			if verb == "get" {
				<-gate
			}
			return nil
		}})
		b.server.Put(configMap("a", "1"))
		p := user("one", "a")
		b.store.Keep([]*corev1.Pod{p})
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		b.store.Await(short, p)
		if short.Err() == nil {
			t.Error("it did not wait")
		}
		done := make(chan struct{})
		go func() { b.store.Await(t.Context(), p); close(done) }()
		synctest.Wait()
		close(gate)
		<-done
		if got := b.value("a"); got != "1" {
			t.Errorf("after the wait it is %q", got)
		}
		b.wantNews("who waited")
		b.store.Await(t.Context(), user("unknown", "a")) // nobody's pod is not waited for
	})
}

// TestRunLate: what is kept before Run is read when it runs.
func TestRunLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &objecttest.Server{}
		server.Put(configMap("a", "1"))
		s, err := New(Config{API: server, Changed: func(pod.ObjectRef) {}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		p := withTokens(user("one", "a"), pod.TokenWish{})
		s.Keep([]*corev1.Pod{p})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { _ = s.Run(ctx); close(done) }()
		s.Await(t.Context(), p)
		if m, err := s.ConfigMap("ns", "a"); err != nil || m.Data["k"] != "1" {
			t.Errorf("%v, %v", m, err)
		}
		if text, err := s.Token(p, pod.TokenWish{}); err != nil || text == "" {
			t.Errorf("no token: %v", err)
		}
		cancel()
		<-done
		s.Keep([]*corev1.Pod{user("two", "b")}) // begins nothing
		s.Keep(nil)
	})
}

// TestReadsDoNotWaitForWatches: a watch begins slowly, and nobody's object waits
// for that.
func TestReadsDoNotWaitForWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := begin(t, &objecttest.Server{Fault: func(ctx context.Context, verb string, _ pod.ObjectRef) error {
			if verb != "watch" {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}})
		var all []*corev1.Pod
		for i := range 3 * connecting {
			name := fmt.Sprint("m", i)
			b.server.Put(configMap(name, "1"))
			all = append(all, withTokens(user(name, name), pod.TokenWish{}))
		}
		b.store.Keep(all)
		for i, p := range all {
			b.want("no watch has begun", fmt.Sprint("m", i), "1")
			if text := b.token(p, pod.TokenWish{}); !strings.HasPrefix(text, objecttest.TokenText) {
				t.Errorf("no watch has begun: the token is %q", text)
			}
		}
		if n := b.server.Calls("watch"); n != connecting {
			t.Errorf("%d watches begin at once, want %d", n, connecting)
		}
	})
}

// TestDeletedBetween: what is deleted after it was read and before it is watched
// is missed by nobody.
func TestDeletedBetween(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &objecttest.Server{}
		server.Fault = func(_ context.Context, verb string, at pod.ObjectRef) error {
			if verb == "watch" {
				server.Delete(at)
			}
			return nil
		}
		server.Put(configMap("a", "1"))
		b := begin(t, server)
		b.store.Keep([]*corev1.Pod{user("one", "a")})
		synctest.Wait()
		if _, err := b.store.ConfigMap("ns", "a"); !apierrors.IsNotFound(err) {
			t.Errorf("it is told as %v", err)
		}
	})
}
