package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
)

// TestRequestsAreCounted: each request is counted by words of ours, whoever asks and
// whatever they make up, and ends.
func TestRequestsAreCounted(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	under := 0
	b := newBed(t, func(cfg *NodeAPIConfig) {
		cfg.Metrics = map[string]func(context.Context, io.Writer) error{"": nothing, "cadvisor": nothing}
		cfg.Count = func(method, path string, long bool) func() {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, fmt.Sprint(method, " ", path, " ", long))
			under++
			return func() { mu.Lock(); defer mu.Unlock(); under-- }
		}
	}).run(t)
	boss, stranger := b.boss(t), b.client(t, true)
	for _, c := range []struct {
		client       *http.Client
		method, path string
		want         string
	}{
		{boss, "GET", "/healthz", "GET healthz false"},
		{boss, "GET", "/healthz/pods", "GET healthz false"},
		{boss, "GET", "/metrics", "GET metrics false"},
		{boss, "GET", "/metrics/cadvisor", "GET metrics/cadvisor false"},
		{boss, "GET", "/metrics/made-up", "GET other false"},
		{boss, "GET", "/runningpods/", "GET runningpods false"},
		{boss, "GET", "/containerLogs/default/none/c", "GET containerLogs false"},
		{boss, "POST", "/exec/default/none/c", "POST exec true"},
		{boss, "GET", "/made/up", "GET other false"},
		{boss, "GET", "//pods", "GET other false"},
		{boss, "BREW", "/pods", "other pods false"},
		{stranger, "GET", "/pods", "GET pods false"},
	} {
		ask(t, c.client, c.method, b.url+c.path)
		mu.Lock()
		if len(seen) == 0 || seen[len(seen)-1] != c.want {
			t.Errorf("%s %s is counted as %q, want %q", c.method, c.path, seen, c.want)
		}
		seen = slices.Delete(seen, 0, len(seen))
		mu.Unlock()
	}
	if err := b.stop(); err != nil { // it waits for those under way
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if under != 0 {
		t.Errorf("%d requests never ended", under)
	}
}

func nothing(context.Context, io.Writer) error { return nil }
