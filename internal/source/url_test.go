package source

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/internal/pod/validate"
)

// TestURL: pods behind a URL come, stay whatever the server does, and go only with an
// answer that is whole and lacks them.
func TestURL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink()
		var answer atomic.Pointer[http.HandlerFunc]
		text := func(body string) {
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Token") != "t" {
					t.Error("the header is not sent")
				}
				fmt.Fprint(w, body)
			})
			answer.Store(&h)
		}
		fail := func(h http.HandlerFunc) { answer.Store(&h) }
		server := &http.Server{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*answer.Load())(w, r) })}
		served := make(chan struct{})
		go func() { defer close(served); _ = server.Serve(l) }()
		transport := &http.Transport{DialContext: l.dial}
		var latest box
		var last Snapshot
		var count int
		text(manifest("a") + "---\n" + manifest("b"))
		u, err := NewURL(URLConfig{
			URL: "http://user:secret@server/pods?key=secret", Header: http.Header{"Token": {"t"}}, NodeName: "node1", OS: "linux", Arch: "amd64",
			Default: validate.Default, Validate: validate.Validate, Client: &http.Client{Transport: transport},
			Emit: latest.put,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- u.Run(ctx) }()
		wants := func(when, names, problem string) {
			t.Helper()
			time.Sleep(DefaultURLRescan + urlDeadline)
			synctest.Wait()
			last, count = latest.get()
			var got, told []string
			for _, p := range last.Pods {
				got = append(got, p.Name)
			}
			for _, p := range last.Problems {
				told = append(told, p.File+": "+p.Message)
			}
			if strings.Join(got, " ") != names {
				t.Errorf("%s: got %v, want %q", when, got, names)
			}
			if all := strings.Join(told, "; "); !strings.Contains(all, problem) || problem == "" && all != "" || strings.Contains(all, "secret") {
				t.Errorf("%s: problems %q, want %q", when, all, problem)
			}
		}
		wants("at first", "a-node1 b-node1", "")
		if !last.Synced || !last.Trusted || last.Source != "http" || last.Pods[0].Annotations[annotationSource] != "http" {
			t.Errorf("snapshot %+v", last)
		}
		before := count
		wants("unchanged", "a-node1 b-node1", "")
		if count != before {
			t.Error("nothing changed, and a snapshot was sent")
		}
		fail(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
		wants("500", "a-node1 b-node1", `the server says "500`)
		fail(func(http.ResponseWriter, *http.Request) {})
		wants("empty", "a-node1 b-node1", "the answer is empty")
		fail(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		wants("no answer", "a-node1 b-node1", "deadline")
		fail(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, manifest("a"))
		})
		wants("half", "a-node1 b-node1", "unexpected EOF")
		fail(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, maxFileBytes+1)) })
		wants("too much", "a-node1 b-node1", "more than")
		text("kind: [")
		wants("nonsense", "a-node1 b-node1", "http://server/pods: ")
		text(manifest("b"))
		wants("one less", "b-node1", "")
		text(`{"apiVersion":"v1","kind":"PodList","items":[]}`)
		wants("none", "b-node1", "list holds no pod")
		cancel()
		<-done
		transport.CloseIdleConnections()
		_ = server.Close()
		<-served
	})
}

func TestURLConfig(t *testing.T) {
	for _, at := range []string{"", "ftp://x/", "http://", "://", "/etc/pods"} {
		if _, err := NewURL(URLConfig{URL: at, NodeName: "n"}); err == nil {
			t.Errorf("%q is taken", at)
		}
	}
}
