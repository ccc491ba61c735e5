package server

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	authzv1 "k8s.io/api/authorization/v1"
)

func TestWhoMayAsk(t *testing.T) {
	b := newBed(t, nil).run(t)
	b.reviewer.set(func() { b.reviewer.tokens["good"], b.reviewer.tokens["meek"] = "boss", "nobody" })
	hour := time.Now().Add(time.Hour)
	for _, c := range []struct {
		name  string
		cert  *tls.Certificate
		token string
		code  int
	}{
		{"nothing", nil, "", 401},
		{"a certificate", new(b.ca.client(t, "boss")), "", 200},
		{"a certificate without rights", new(b.ca.client(t, "clerk")), "", 403},
		{"a certificate of somebody else's", new(newAuthority(t, "clients").client(t, "boss")), "", 401},
		{"a certificate that is over", new(b.ca.issue(t, "boss", x509.ExtKeyUsageClientAuth, time.Now().Add(-time.Minute))), "", 401},
		{"a server's certificate", new(b.ca.issue(t, "boss", x509.ExtKeyUsageServerAuth, hour)), "", 401},
		{"a certificate without a name", new(b.ca.client(t, "")), "", 401},
		{"a token", nil, "Bearer good", 200},
		{"a token without rights", nil, "bearer  meek", 403},
		{"a token of nobody", nil, "Bearer bad", 401},
		{"no token", nil, "Bearer ", 401},
		{"a password", nil, "Basic Z29vZDpnb29k", 401},
		{"a token of any length", nil, "Bearer " + strings.Repeat("x", maxToken+1), 401},
		{"a bad certificate and a token", new(newAuthority(t, "x").client(t, "boss")), "Bearer good", 200},
		{"both: the certificate counts", new(b.ca.client(t, "clerk")), "Bearer good", 403},
	} {
		for _, h2 := range []bool{false, true} {
			var certs []tls.Certificate
			if c.cert != nil {
				certs = append(certs, *c.cert)
			}
			var header []string
			if c.token != "" {
				header = []string{"Authorization", c.token}
			}
			got := ask(t, b.client(t, h2, certs...), http.MethodGet, b.url+"/healthz", header...)
			if got.code != c.code || got.proto != map[bool]int{false: 1, true: 2}[h2] {
				t.Errorf("%s (HTTP/%d): %d %q, want %d", c.name, got.proto, got.code, got.body, c.code)
			}
		}
	}
	_, tokens := b.reviewer.questions()
	if n := strings.Count(strings.Join(tokens, " "), "good"); n != 1 {
		t.Errorf("a good token was reviewed %d times, want once", n)
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
	for _, secret := range []string{"good", "meek", "Z29vZDpnb29k"} {
		if strings.Contains(b.log.String(), secret) {
			t.Errorf("a credential is in the log:\n%s", b.log)
		}
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	b := newBed(t, nil).run(t)
	c := b.client(t, false, b.ca.client(t, "boss"))
	c.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS12
	if resp, err := c.Get(b.url + "/healthz"); err == nil {
		resp.Body.Close()
		t.Error("TLS 1.2 is spoken although nobody asked for it")
	}
	b = newBed(t, func(cfg *NodeAPIConfig) { cfg.MinVersion = tls.VersionTLS12 }).run(t)
	c = b.client(t, false, b.ca.client(t, "boss"))
	c.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS12
	if got := ask(t, c, http.MethodGet, b.url+"/healthz"); got.code != http.StatusOK {
		t.Errorf("TLS 1.2 where it was asked for: %d", got.code)
	}
}

// TestRights holds each path against the rights that kubelet asks for.
func TestRights(t *testing.T) {
	b := newBed(t, func(cfg *NodeAPIConfig) { cfg.DeniedTTL = 1 }).run(t) // each right is asked anew
	clerk := b.client(t, true, b.ca.client(t, "clerk"))
	b.reviewer.set(func() { b.reviewer.may = func(authzv1.SubjectAccessReviewSpec) bool { return false } })
	for _, c := range []struct{ method, path, want string }{
		{"GET", "/healthz", "get healthz,get proxy"},
		{"GET", "/healthz/syncloop", "get healthz,get proxy"},
		{"GET", "/pods", "get pods,get proxy"},
		{"GET", "/pods/", "get pods,get proxy"},
		{"GET", "/runningpods/", "get pods,get proxy"},
		{"GET", "/configz", "get configz,get proxy"},
		{"GET", "/metrics", "get metrics"},
		{"GET", "/metrics/cadvisor", "get metrics"},
		{"GET", "/stats/summary", "get stats"},
		{"GET", "/logs/syslog", "get log"},
		{"POST", "/checkpoint/ns/p/c", "create checkpoint"},
		{"GET", "/containerLogs/ns/p/c", "get proxy"},
		{"GET", "/exec/ns/p/c", "create proxy"},
		{"POST", "/exec/ns/p/u/c", "create proxy"},
		{"PUT", "/attach/ns/p/c", "create proxy"},
		{"GET", "/attach/ns/p/c", "create proxy"},
		{"GET", "/portForward/ns/p", "create proxy"},
		{"DELETE", "/run/ns/p/c", "create proxy"},
		{"GET", "/debug/pprof/heap", "get proxy"},
		{"PATCH", "/", "patch proxy"},
		{"DELETE", "/nothing", "delete proxy"},
		{"GET", "/metrics/../exec/ns/p/c", "get proxy"},
		{"GET", "//exec/ns/p/c", "get proxy"},
	} {
		b.reviewer.set(func() { b.reviewer.asked = nil })
		got := ask(t, clerk, c.method, b.url+c.path)
		asked, _ := b.reviewer.questions()
		var rights []string
		for _, s := range asked {
			a := s.ResourceAttributes
			rights = append(rights, a.Verb+" "+a.Subresource)
			if a.Name != "n1" || a.Resource != "nodes" || a.Version != "v1" || a.Group != "" || s.NonResourceAttributes != nil ||
				!slices.Contains(s.Groups, groupAuthenticated) || !slices.Contains(s.Groups, "system:masters") || len(s.Extra[credentialID]) != 1 {
				t.Errorf("%s %s asks %+v of %+v", c.method, c.path, a, s)
			}
		}
		if got.code != http.StatusForbidden || strings.Join(rights, ",") != c.want {
			t.Errorf("%s %s: %d, asks %q, want 403 after %q", c.method, c.path, got.code, rights, c.want)
		}
	}
	if got := ask(t, clerk, "OPTIONS", b.url+"/pods"); got.code != http.StatusMethodNotAllowed {
		t.Errorf("a method that means nothing: %d", got.code)
	}
}

// TestStreamsNeedCreate: who may only read opens no stream, on no transport, and is
// never sent elsewhere.
func TestStreamsNeedCreate(t *testing.T) {
	b := newBed(t, nil).run(t)
	reader := b.client(t, false, b.ca.client(t, "reader"))
	b.reviewer.set(func() {
		b.reviewer.may = func(s authzv1.SubjectAccessReviewSpec) bool { return s.ResourceAttributes.Verb != "create" }
	})
	for _, path := range []string{"/exec/ns/p/c?command=id", "/attach/ns/p/c", "/portForward/ns/p", "/run/ns/p/c?cmd=id", "/exec/ns/p/u/c", "/exec/", "/exec"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			for _, transport := range [][]string{
				{"Connection", "Upgrade", "Upgrade", "SPDY/3.1"},
				{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-Websocket-Key", "dGhlIHNhbXBsZSBub25jZQ==", "Sec-Websocket-Version", "13"},
				nil,
			} {
				if got := ask(t, reader, method, b.url+path, transport...); got.code != http.StatusForbidden {
					t.Errorf("%s %s %v: %d %q, want 403", method, path, transport, got.code, got.body)
				}
			}
		}
	}
	if got := ask(t, reader, http.MethodGet, b.url+"/healthz"); got.code != http.StatusOK {
		t.Errorf("the same client may not even read: %d", got.code)
	}
}

// TestEveryRouteIsClosed walks all routes without a credential and without rights.
func TestEveryRouteIsClosed(t *testing.T) {
	b := newBed(t, nil).run(t)
	stranger, clerk := b.client(t, true), b.client(t, true, b.ca.client(t, "clerk"))
	for first, rt := range b.routes {
		n := 0
		if len(rt.args) > 0 {
			n = rt.args[0]
		}
		for _, path := range []string{"/" + first, "/" + first + strings.Repeat("/x", n)} {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				if got := ask(t, stranger, method, b.url+path); got.code != http.StatusUnauthorized || got.body != "Unauthorized\n" {
					t.Errorf("%s %s tells a stranger %d %q", method, path, got.code, got.body)
				}
				if got := ask(t, clerk, method, b.url+path); got.code != http.StatusForbidden {
					t.Errorf("%s %s tells one without rights %d %q", method, path, got.code, got.body)
				}
			}
		}
	}
}

// TestFirstRightSuffices: nodes/pods without nodes/proxy shows pods, and no more.
func TestFirstRightSuffices(t *testing.T) {
	b := newBed(t, nil).run(t)
	b.reviewer.set(func() {
		b.reviewer.may = func(s authzv1.SubjectAccessReviewSpec) bool { return s.ResourceAttributes.Subresource == "pods" }
	})
	c := b.client(t, true, b.ca.client(t, "agent"))
	for path, want := range map[string]int{"/pods": 200, "/runningpods/": 200, "/configz": 403, "/containerLogs/a/b/c": 403, "/metrics": 403, "/nothing": 403} {
		if got := ask(t, c, http.MethodGet, b.url+path); got.code != want {
			t.Errorf("%s: %d, want %d", path, got.code, want)
		}
	}
}

// TestReviewsFail: nobody gets in because the API server is ill, and who was let in
// a moment ago still is.
func TestReviewsFail(t *testing.T) {
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request){
		"500": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "etcd", http.StatusInternalServerError) },
		"429": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(429)
		},
		"garbage":  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"status":`)) },
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"broken":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"allowed?": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(403)
			_, _ = w.Write([]byte(`{"status":{"allowed":true,"authenticated":true}}`))
		},
		"anonymous": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) },
	} {
		b := newBed(t, nil).run(t)
		boss := b.boss(t)
		if got := ask(t, boss, http.MethodGet, b.url+"/healthz"); got.code != 200 {
			t.Fatalf("%s: before: %d", name, got.code)
		}
		b.reviewer.set(func() { b.reviewer.fault, b.reviewer.tokens["good"] = fault, "boss" })
		if got := ask(t, boss, http.MethodGet, b.url+"/healthz"); got.code != 200 {
			t.Errorf("%s: what was allowed a moment ago: %d", name, got.code)
		}
		for _, header := range [][]string{nil, {"Authorization", "Bearer good"}} {
			c := b.client(t, true, b.ca.client(t, "boss2"))
			if header != nil {
				c = b.client(t, true)
			}
			got := ask(t, c, http.MethodGet, b.url+"/pods", header...)
			if got := ask(t, boss, http.MethodGet, b.url+"/healthz"); got.code != 200 {
				t.Errorf("%s: what was allowed a moment ago: %d", name, got.code)
			}
			if got.code != http.StatusServiceUnavailable || strings.Contains(got.body, "etcd") || got.head.Get("Retry-After") == "" {
				t.Errorf("%s: %v gets %d %q", name, header, got.code, got.body)
			}
		}
		b.reviewer.set(func() { b.reviewer.fault = nil })
		if got := ask(t, b.client(t, true), http.MethodGet, b.url+"/healthz", "Authorization", "Bearer good"); got.code != 200 {
			t.Errorf("%s: when it is well again: %d", name, got.code)
		}
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		if n := strings.Count(b.log.String(), "level=WARN"); n != 1 {
			t.Errorf("%s is told %d times, want once:\n%s", name, n, b.log)
		}
		if !strings.Contains(b.log.String(), "answers questions about the node API again") {
			t.Errorf("%s: its end is not told:\n%s", name, b.log)
		}
	}
}

// TestReviewsRefused: there is no API server.
func TestReviewsRefused(t *testing.T) {
	b := newBed(t, nil).run(t)
	b.reviewer.Close()
	if got := ask(t, b.boss(t), http.MethodGet, b.url+"/pods"); got.code != http.StatusServiceUnavailable {
		t.Errorf("without an API server: %d", got.code)
	}
	if got := ask(t, b.client(t, true), http.MethodGet, b.url+"/pods", "Authorization", "Bearer x"); got.code != http.StatusServiceUnavailable {
		t.Errorf("without an API server, by a token: %d", got.code)
	}
}

// TestClientCAIsReloaded: another authority counts from the moment its file is
// there, on connections too that are open already, and a bad file changes nothing.
func TestClientCAIsReloaded(t *testing.T) {
	b := newBed(t, nil).run(t)
	next := newAuthority(t, "next")
	old, young := b.boss(t), b.client(t, true, next.client(t, "boss"))
	look := func(when string, wantOld, wantYoung int) {
		t.Helper()
		if got := ask(t, old, http.MethodGet, b.url+"/healthz"); got.code != wantOld {
			t.Errorf("%s the old one gets %d, want %d", when, got.code, wantOld)
		}
		if got := ask(t, young, http.MethodGet, b.url+"/healthz"); got.code != wantYoung {
			t.Errorf("%s the new one gets %d, want %d", when, got.code, wantYoung)
		}
	}
	put := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(b.caFile+".new", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(b.caFile+".new", b.caFile); err != nil {
			t.Fatal(err)
		}
	}
	look("before", 200, 401)
	put(append(b.ca.pem(), next.pem()...))
	look("with both", 200, 200)
	put([]byte("no certificate"))
	look("with a bad file", 200, 200)
	if err := os.Remove(b.caFile); err != nil {
		t.Fatal(err)
	}
	look("without a file", 200, 200)
	put(next.pem())
	look("after", 401, 200)
}

// TestNoAuthorityIsNobody: without a readable file no certificate counts, and least
// of all one of the system's authorities.
func TestNoAuthorityIsNobody(t *testing.T) {
	b := newBed(t, func(cfg *NodeAPIConfig) { cfg.ClientCAFile = "/nowhere/ca.crt" }).run(t)
	if got := ask(t, b.boss(t), http.MethodGet, b.url+"/healthz"); got.code != http.StatusUnauthorized {
		t.Errorf("without authorities: %d", got.code)
	}
}

func TestNodeAPIWantsJudges(t *testing.T) {
	whole := newBed(t, nil).cfg
	for name, change := range map[string]func(*NodeAPIConfig){
		"authentication.webhook":       func(c *NodeAPIConfig) { c.ClientCAFile, c.Tokens = "", nil },
		"the connection to the API":    func(c *NodeAPIConfig) { c.Access = nil },
		"certificate, node name, pods": func(c *NodeAPIConfig) { c.NodeName = "" },
	} {
		cfg := whole
		change(&cfg)
		if _, err := NewNodeAPI(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is missing: %v", name, err)
		}
	}
	if err := (&NodeAPI{cfg: NodeAPIConfig{Addr: "192.0.2.1:1"}, conns: newConns(1, 1)}).Listen(); err == nil || !strings.Contains(err.Error(), "is a kubelet running") {
		t.Errorf("a port that cannot be opened is told as %v", err)
	}
}
