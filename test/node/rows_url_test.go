package node

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
)

// urlCanary is in the address and in a header of what TestStaticPodURL asks.
const urlCanary = "canary-of-a-url-2207"

// TestStaticPodURL: pods behind a URL run beside those of files, stay when the server
// fails and another daemon comes, and go with an answer that lacks them. What the
// server is asked with is shown nowhere.
func TestStaticPodURL(t *testing.T) {
	need.Have(t, need.Root)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	b := bed.Containerd(t, bed.Options{})
	must(t, b.Import(ctx))
	var body atomic.Pointer[string] // nil: it fails
	addr := servePods(t, b, &body)
	body.Store(new(manifest("remote", sleeper)))
	a := bed.Agent(t, b, bed.AgentOptions{Args: []string{"-v", "9"}, Kubelet: fmt.Sprintf(
		"staticPodURL: %q\nstaticPodURLHeader: {Token: [%s]}\nhttpCheckFrequency: 100ms\n", "http://u:"+urlCanary+"@"+addr+"/pods?key="+urlCanary, urlCanary)})
	must(t, a.WaitPhase(ctx, "default/remote-node", corev1.PodRunning))
	before, err := b.Running(ctx)
	must(t, err)

	body.Store(nil)
	must(t, a.Restart(ctx))
	must(t, a.WriteManifest("local", manifest("local", sleeper)))
	must(t, a.WaitPhase(ctx, "default/local-node", corev1.PodRunning))
	after, err := b.Running(ctx)
	must(t, err)
	for id, pid := range before {
		if after[id] != pid {
			t.Errorf("while the server fails, a daemon that begins anew ends %s: there were %v, and are %v", id, before, after)
		}
	}
	said, err := a.CLI(ctx, "pods")
	if err != nil || !strings.Contains(said, "http://"+addr+"/pods") || !strings.Contains(said, `the server says`) {
		t.Errorf("of the server that fails it is said: %v\n%s", err, said)
	}

	body.Store(new(manifest("other", sleeper)))
	must(t, a.WaitPods(ctx, func(pods map[string]*corev1.Pod) bool {
		p := pods["default/other-node"]
		return p != nil && p.Status.Phase == corev1.PodRunning && pods["default/remote-node"] == nil && pods["default/local-node"] != nil
	}))
	shown, err := a.CLI(ctx, "config", "-o", "yaml", "--config", a.ConfigFile())
	must(t, err)
	socket, err := a.Get(ctx, "/v1/config")
	must(t, err)
	log, err := os.ReadFile(a.Log())
	must(t, err)
	for what, text := range map[string]string{"the command line": shown + said, "the socket": string(socket), "the log": string(log)} {
		if strings.Contains(text, urlCanary) {
			t.Errorf("%s shows what the server is asked with", what)
		}
	}
	if !strings.Contains(shown, "http://"+addr+"/pods") {
		t.Errorf("the configuration does not show where pods come from:\n%s", shown)
	}
}

// servePods serves one document in the bed's network namespace, to who has the header.
func servePods(t *testing.T, b *bed.Bed, body *atomic.Pointer[string]) (addr string) {
	t.Helper()
	var l net.Listener
	must(t, b.Do(func() (err error) { l, err = net.Listen("tcp4", "127.0.0.1:0"); return err }))
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text := body.Load()
		if text == nil || r.Header.Get("Token") != urlCanary {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, *text)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })
	return l.Addr().String()
}
