package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"testing"

	authnv1 "k8s.io/api/authentication/v1"
	authzv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"nodeagent/internal/pod"
	"nodeagent/internal/server"
)

// nobodysPods is a node without a pod, on which "boss" may do anything.
type nobodysPods struct{}

func (nobodysPods) Pods() []*corev1.Pod                { return nil }
func (nobodysPods) Observe(types.UID) pod.RuntimeState { return pod.RuntimeState{} }
func (nobodysPods) Watch(ctx context.Context, _ func(*corev1.Pod, bool) error) error {
	<-ctx.Done()
	return ctx.Err()
}

func (nobodysPods) ReviewToken(_ context.Context, token string) (authnv1.TokenReviewStatus, error) {
	return authnv1.TokenReviewStatus{Authenticated: token == "boss", User: authnv1.UserInfo{Username: token}}, nil
}

func (nobodysPods) ReviewAccess(_ context.Context, s authzv1.SubjectAccessReviewSpec) (authzv1.SubjectAccessReviewStatus, error) {
	return authzv1.SubjectAccessReviewStatus{Allowed: s.User == "boss"}, nil
}

// TestMadeUpPathsMakeNoSeries: whatever clients make up, paths, methods, tokens and
// names, with rights and without, the node counts it by words of its own, and keeps
// nothing of it (PATHS says how many; "make soak" asks for a million).
func TestMadeUpPathsMakeNoSeries(t *testing.T) {
	paths := 40_000
	if more, err := strconv.Atoi(os.Getenv("PATHS")); err == nil {
		paths = more
	}
	count := newOperations()
	api, err := server.NewNodeAPI(server.NodeAPIConfig{
		NodeName: "node", Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil },
		Tokens: nobodysPods{}, Access: nobodysPods{}, Pods: nobodysPods{}, Runtime: nobodysPods{},
		Kubelet: func() *kubeletv1beta1.KubeletConfiguration { return &kubeletv1beta1.KubeletConfiguration{} },
		Metrics: map[string]func(context.Context, io.Writer) error{"": func(context.Context, io.Writer) error { return nil }},
		Count:   count.requests.begun, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(i int) {
		shapes := []string{"/made-%d", "/made/up-%d", "/exec/ns-%d/pod/container", "/containerLogs/ns/pod-%d/container", "/metrics/made-%d",
			"/pods/%d", "//pods/%d", "/logs/%d", "/healthz/%d", "/run/ns/pod/uid/c-%d", "/stats/%d", "/portForward/ns/pod-%d"}
		method := []string{http.MethodGet, http.MethodPost, http.MethodPatch, fmt.Sprintf("M%d", i)}[i/len(shapes)%4]
		r := httptest.NewRequestWithContext(t.Context(), method, fmt.Sprintf(shapes[i%len(shapes)], i), nil)
		switch i / len(shapes) / 4 % 3 {
		case 0:
			r.Header.Set("Authorization", "Bearer boss")
		case 1:
			r.Header.Set("Authorization", fmt.Sprintf("Bearer guess-%d", i))
		}
		r.Header.Set("User-Agent", fmt.Sprintf("agent-%d", i))
		api.ServeHTTP(httptest.NewRecorder(), r)
	}
	const each = 12 * 4 * 3 // every shape, method and kind of client
	for i := range each {
		ask(i)
	}
	series, before := len(sums(t, count.registry)), heap()
	for i := each; i < each+paths; i++ {
		ask(i)
	}
	after, held := len(sums(t, count.registry)), heap()-before
	t.Logf("figure: %d made-up requests: %d series before and %d after, %+d KiB of memory", paths, series, after, held>>10)
	if after != series {
		t.Errorf("%d made-up requests made %d series of %d", paths, after, series)
	}
	if held > 16<<20 {
		t.Errorf("%d made-up requests left %d MiB", paths, held>>20)
	}
}

// heap is the memory of what is reachable.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
