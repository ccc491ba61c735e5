package cert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/rest"

	"nodeagent/internal/cert/certtest"
)

// node is a node's files, and a client that runs on them.
type node struct {
	t    *testing.T
	api  *certtest.API
	dir  string
	log  bytes.Buffer
	cfg  ClientConfig
	c    *Client
	stop func()
}

// within runs f on a new node in virtual time.
func within(t *testing.T, f func(*node)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := &node{t: t, api: certtest.New(), dir: dir}
		n.cfg = ClientConfig{
			Kubeconfig: n.path("kubelet.conf"), Bootstrap: n.path("bootstrap-kubelet.conf"),
			Dir: n.path("pki"), NodeName: "n1", Rotate: true,
			Logger: slog.New(slog.NewTextHandler(&n.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
			dial:   n.api.Dial, blind: true,
		}
		n.bootstrap(certtest.Token)
		f(n)
		n.end()
		n.api.Close()
		if strings.Contains(n.log.String(), "PRIVATE KEY") || strings.Contains(n.log.String(), certtest.Token) {
			t.Errorf("a secret is in the log: %s", n.log.String())
		}
	})
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

func (n *node) write(name, text string) {
	n.t.Helper()
	if err := os.WriteFile(n.path(name), []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) bootstrap(token string) {
	n.t.Helper()
	n.write("ca.crt", string(n.api.CAPEM))
	n.write("bootstrap-kubelet.conf", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://api.test:6443", certificate-authority: ca.crt}}]
users: [{name: u, user: {token: %q}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, token))
}

// start runs the client as a daemon that has just been started does.
func (n *node) start() {
	n.t.Helper()
	var err error
	if n.c, err = NewClient(n.cfg); err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	c := n.c
	go func() { _ = c.Run(ctx); close(done) }()
	n.stop = func() {
		cancel()
		<-done
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, l := range c.lines {
			l.follow(nil)
		}
	}
	synctest.Wait()
}

// end stops it; nothing of it is in memory any more.
func (n *node) end() {
	if n.stop != nil {
		n.stop()
		n.stop = nil
	}
}

// poked tells the client what inotify would.
func (n *node) poked() {
	poke(n.c.keep.wake)
	synctest.Wait()
}

func (n *node) wantReady() {
	n.t.Helper()
	select {
	case <-n.c.Ready():
	default:
		n.t.Fatalf("not ready: %+v", n.c.State())
	}
}

// whoami asks the server, through cfg.
func whoami(t *testing.T, cfg *rest.Config) (string, error) {
	t.Helper()
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Get(cfg.Host + "/whoami")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return "", errors.New(resp.Status)
	}
	return string(text), err
}

func (n *node) wantUser(cfg *rest.Config, prefix string) string {
	n.t.Helper()
	got, err := whoami(n.t, cfg)
	if err != nil || !strings.HasPrefix(got, prefix) {
		n.t.Fatalf("the server knows us as %q, %v; state %+v", got, err, n.c.State())
	}
	return got
}

// count is how many calls begin so.
func (n *node) count(prefix string) int {
	got := 0
	for _, c := range n.api.Calls() {
		if strings.HasPrefix(c, prefix) {
			got++
		}
	}
	return got
}

func TestBootstrap(t *testing.T) {
	within(t, func(n *node) {
		n.start()
		n.wantReady()
		cfg := n.c.Config()
		n.wantUser(cfg, "system:node:n1#")
		if cfg.BearerToken != "" || len(cfg.KeyData) > 0 {
			t.Error("the configuration that goes round holds a secret")
		}
		for _, name := range []string{"kubelet.conf", "pki/kubelet-client-current.pem"} {
			st, err := os.Stat(n.path(name))
			if err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", name, st.Mode(), err)
			}
		}
		if target, err := os.Readlink(n.path("pki/kubelet-client-current.pem")); err != nil || !strings.HasPrefix(filepath.Base(target), "kubelet-client-20") {
			t.Errorf("current links to %q, %v", target, err)
		}
		text, _ := os.ReadFile(n.path("kubelet.conf"))
		for _, want := range []string{"client-certificate: " + n.path("pki/kubelet-client-current.pem"), "server: https://api.test:6443", "certificate-authority: " + n.path("ca.crt"), "current-context: default-context"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("kubelet.conf lacks %q:\n%s", want, text)
			}
		}
		if _, err := os.Stat(n.path("pki/kubelet-client.key.tmp")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the key of the request stays: %v", err)
		}
		n.end()
		n.start()
		n.wantReady()
		if got := len(n.api.Requests()); got != 1 {
			t.Errorf("%d signing requests, want 1", got)
		}
	})
}

func TestRotation(t *testing.T) {
	within(t, func(n *node) {
		n.start()
		cfg := n.c.Config()
		first := n.wantUser(cfg, "system:node:n1#")
		client, _ := rest.HTTPClientFor(cfg)
		hang, err := client.Get(cfg.Host + "/hang")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _, _ = io.Copy(io.Discard, hang.Body); hang.Body.Close(); close(ended) }()
		time.Sleep(42*time.Minute - time.Second)
		if got := n.wantUser(cfg, "system:node:n1#"); got != first {
			t.Errorf("renewed before 70%%: %s", got)
		}
		time.Sleep(12*time.Minute + 2*time.Second)
		synctest.Wait()
		if got := n.wantUser(cfg, "system:node:n1#"); got == first {
			t.Errorf("not renewed at 90%%: %s, %+v", got, n.c.State())
		}
		select {
		case <-ended:
		default:
			t.Error("a watch lives on with the old certificate")
		}
		if n.count("POST "+"/apis/certificates.k8s.io/v1/certificatesigningrequests system:node:n1") != 1 {
			t.Errorf("the second request is not by the first certificate: %v", n.api.Calls())
		}
		// A week later there are not 200 keys on the disk.
		time.Sleep(7 * 24 * time.Hour)
		files, _ := filepath.Glob(n.path("pki/kubelet-client-2*.pem"))
		if len(files) > 2 {
			t.Errorf("%d generations stay", len(files))
		}
		n.wantUser(cfg, "system:node:n1#")
	})
}

func TestServerAway(t *testing.T) {
	within(t, func(n *node) {
		n.api.Away(true)
		codes := map[string]int{}
		n.cfg.Asked = func(method, host string, code int, _ time.Duration) {
			codes[fmt.Sprint(method, " ", host, " ", code)]++
		}
		n.start()
		cfg := n.c.Config()
		if _, err := whoami(t, cfg); err == nil {
			t.Error("a request without credentials went through")
		}
		time.Sleep(time.Hour)
		if d := n.api.Dials(); d < 60 || d > 300 {
			t.Errorf("%d connections tried in an hour", d)
		}
		failed := n.c.State().Failures
		if n.c.State().Problem == "" || failed == 0 || n.c.State().Errors != failed {
			t.Errorf("nobody is told: %+v", n.c.State())
		}
		n.api.Away(false)
		time.Sleep(longestPause)
		synctest.Wait()
		n.wantReady()
		n.wantUser(cfg, "system:node:n1#")
		if s := n.c.State(); s.Failures != 0 || s.Errors < failed {
			t.Errorf("that it failed before is forgotten: %+v", s)
		}
		// Away until the certificate has expired: back by the bootstrap token.
		n.api.Away(true)
		time.Sleep(3 * time.Hour)
		if _, err := whoami(t, cfg); err == nil || codes["GET api.test:6443 200"] != 1 || codes["GET api.test:6443 0"] != 1 {
			t.Errorf("requests are counted as %v, the last one is answered with %v", codes, err)
		}
		if s := n.c.State(); !s.Expired(time.Now()) || !strings.Contains(s.Problem, "expired") {
			t.Errorf("nobody is told that it has expired: %+v", s)
		}
		n.api.Away(false)
		time.Sleep(longestPause)
		synctest.Wait()
		n.wantUser(cfg, "system:node:n1#")
	})
}

func TestDenied(t *testing.T) {
	within(t, func(n *node) {
		n.api.Set(certtest.Deny)
		n.start()
		if p := n.c.State().Problem; !strings.Contains(p, "not today") {
			t.Errorf("problem %q", p)
		}
		time.Sleep(time.Hour)
		if got := len(n.api.Requests()); got < 3 || got > 20 {
			t.Errorf("%d requests in an hour of refusals", got)
		}
		n.api.Set(certtest.Sign)
		time.Sleep(longRefusal)
		synctest.Wait()
		n.wantReady()
	})
}

func TestNeverApproved(t *testing.T) {
	within(t, func(n *node) {
		n.api.Set(certtest.Hold)
		n.start()
		name := n.c.State().Request
		time.Sleep(24 * time.Hour)
		all := n.api.Requests()
		if len(all) != 1 || all[0].Name != name {
			t.Fatalf("%d requests, the state tells of %q", len(all), name)
		}
		if calls := len(n.api.Calls()); calls > 2*24*13 {
			t.Errorf("%d calls in a day of waiting", calls)
		}
		n.api.Forget() // the cluster's cleaner
		synctest.Wait()
		n.end()
		n.start()
		if got := n.api.Requests(); len(got) != 1 || got[0].Name != name {
			t.Fatalf("after a restart: %d requests", len(got))
		}
		n.api.Set(certtest.Sign)
		synctest.Wait()
		n.wantReady()
		n.wantUser(n.c.Config(), "system:node:n1#")
	})
}

func TestAnswerLost(t *testing.T) {
	within(t, func(n *node) {
		n.api.Set(certtest.Lose)
		n.start()
		time.Sleep(time.Minute)
		synctest.Wait()
		n.wantReady()
		if got := len(n.api.Requests()); got != 1 {
			t.Errorf("%d requests, want 1", got)
		}
	})
}

// TestNotTaken: a certificate that the server does not take, though it has not
// expired, is replaced by the bootstrap kubeconfig as soon as it is to be renewed.
func TestNotTaken(t *testing.T) {
	within(t, func(n *node) {
		n.start()
		n.wantReady()
		n.api.Reject(true)
		posts := n.count("POST")
		time.Sleep(54*time.Minute + time.Second)
		synctest.Wait()
		if n.count("POST") == posts {
			t.Fatalf("no request by the bootstrap token: %+v", n.c.State())
		}
		n.api.Reject(false)
		n.wantUser(n.c.Config(), "system:node:n1#")
	})
}

// TestTokenReplaced: a bootstrap token that the server refuses is tried again at
// once when somebody puts another into the file.
func TestTokenReplaced(t *testing.T) {
	within(t, func(n *node) {
		n.bootstrap("wrong.0000000000000000")
		n.start()
		time.Sleep(time.Hour)
		n.bootstrap(certtest.Token)
		n.poked()
		n.wantReady()
	})
}

// TestKubeconfigReplaced: what others write is used at once, and a broken file
// changes nothing.
func TestKubeconfigReplaced(t *testing.T) {
	within(t, func(n *node) {
		n.cfg.Rotate, n.cfg.Bootstrap = false, ""
		n.start()
		cfg := n.c.Config()
		text, _ := os.ReadFile(n.path("bootstrap-kubelet.conf"))
		n.write("kubelet.conf", string(text))
		n.poked()
		n.wantReady()
		n.wantUser(cfg, "bootstrap")
		n.write("kubelet.conf", "{")
		n.poked()
		n.wantUser(cfg, "bootstrap")
		if !strings.Contains(n.c.State().Problem, "kubelet.conf") {
			t.Errorf("nobody is told: %+v", n.c.State())
		}
		n.write("kubelet.conf", string(text))
		n.write("ca.crt", "")
		n.poked()
		n.wantUser(cfg, "bootstrap")
		n.write("ca.crt", string(n.api.CAPEM))
		n.write("kubelet.conf", strings.Replace(string(text), certtest.Token, "nobody.0000000000000000", 1))
		n.poked()
		if _, err := whoami(t, cfg); err == nil {
			t.Error("the old token is still used")
		}
	})
}

// TestClockAhead: with a clock that makes each new certificate look old, requests
// are still far between.
func TestClockAhead(t *testing.T) {
	within(t, func(n *node) {
		n.api.Skew = -24 * time.Hour
		n.start()
		time.Sleep(time.Hour)
		if got := len(n.api.Requests()); got > 300 {
			t.Errorf("%d requests in an hour", got)
		}
		if n.c.State().Problem == "" {
			t.Error("nobody is told")
		}
	})
}

// TestKilledAtEveryStep kills the daemon before each change of the disk in turn,
// during the bootstrap and during a rotation, and starts it again.
func TestKilledAtEveryStep(t *testing.T) {
	steps := 0
	for at := 1; ; at++ {
		died := false
		within(t, func(n *node) {
			step := 0
			n.cfg.disk.fault = func() error {
				if step++; step >= at {
					died = true
					return errors.New("killed")
				}
				return nil
			}
			n.start()
			time.Sleep(54 * time.Minute)
			synctest.Wait()
			n.end()
			n.cfg.disk.fault = nil
			before := len(n.api.Requests())
			n.start()
			time.Sleep(time.Minute)
			synctest.Wait()
			n.wantReady()
			n.wantUser(n.c.Config(), "system:node:n1#")
			if s := n.c.State(); s.Problem != "" {
				t.Errorf("killed at step %d: %s", at, s.Problem)
			}
			if after := len(n.api.Requests()); after > before+1 {
				t.Errorf("killed at step %d: %d requests, then %d", at, before, after)
			}
			litter, _ := filepath.Glob(n.path("pki/.*" + tempMark + "*"))
			more, _ := filepath.Glob(n.path(".*" + tempMark + "*"))
			if len(litter)+len(more) > 0 {
				t.Errorf("killed at step %d: %v %v stay", at, litter, more)
			}
		})
		if !died {
			break
		}
		steps++
	}
	if steps < 15 {
		t.Errorf("only %d steps were tried", steps)
	}
}

// TestPowerCut: files that a power cut has emptied are made anew.
func TestPowerCut(t *testing.T) {
	within(t, func(n *node) {
		n.start()
		n.end()
		real, err := filepath.EvalSymlinks(n.path("pki/kubelet-client-current.pem"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(real, 0); err != nil {
			t.Fatal(err)
		}
		n.write("pki/kubelet-client.key.tmp", "")
		n.start()
		time.Sleep(time.Minute)
		synctest.Wait()
		n.wantReady()
		n.wantUser(n.c.Config(), "system:node:n1#")
	})
}
