package image

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

const password = "s3cret-canary"

func basic(user, pass string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if u, p, ok := r.BasicAuth(); ok && u == user && p == pass {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
}

func auth64(user, pass string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + pass))
}

func (n *node) dockerConfig(text string, args ...any) *node {
	n.Helper()
	file := filepath.Join(n.TempDir(), "config.json")
	if err := os.WriteFile(file, fmt.Appendf(nil, text, args...), 0o600); err != nil {
		n.Fatal(err)
	}
	return n.with(n.T, func(c *Config) { c.DockerConfigs = []string{"/absent/config.json", file} })
}

func testAuth(n *node) {
	n.reg.push("v1", simple("auth"))
	n.reg.rule(basic("me", password))
	ref, host := n.ref("team/app:v1"), n.reg.host
	pull := func(m *node, a *Auth) error {
		m.Helper()
		_, err := m.store.Pull(m.ctx(), ref, a, nil)
		if err != nil && (strings.Contains(err.Error(), password) || strings.Contains(err.Error(), auth64("me", password))) {
			m.Errorf("a secret is in the error: %v", err)
		}
		return err
	}
	if err := pull(n, nil); !IsUnauthorized(err) {
		n.Errorf("anonymous: %v", err)
	}
	for name, m := range map[string]*node{
		"auth":            n.dockerConfig(`{"auths":{%q:{"auth":%q}}}`, host, auth64("me", password)),
		"user, password":  n.dockerConfig(`{"auths":{"http://%s/v2/":{"username":"me","password":%q}}}`, host, password),
		"by repository":   n.dockerConfig(`{"auths":{"%s/other":{"auth":%q},"%s/team":{"auth":%q}}}`, host, auth64("x", "y"), host, auth64("me", password)),
		"second try":      n.dockerConfig(`{"auths":{%q:{"auth":%q},"%s/team":{"auth":%q}}}`, host, auth64("me", password), host, auth64("x", "y")),
		"helper elsewise": n.dockerConfig(`{"auths":{%q:{"auth":%q}},"credHelpers":{"other.example":"ecr-login"}}`, host, auth64("me", password)),
	} {
		if err := pull(m, nil); err != nil {
			n.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		m    *node
		a    *Auth
		want string
	}{
		"another host's":  {n.dockerConfig(`{"auths":{"other.example":{"auth":%q}}}`, auth64("me", password)), nil, ""},
		"wrong password":  {n.dockerConfig(`{"auths":{%q:{"auth":%q}}}`, host, auth64("me", password+"x")), nil, ""},
		"a helper":        {n.dockerConfig(`{"credHelpers":{%q:"ecr-login"}}`, host), nil, `"ecr-login", which is not run`},
		"a store":         {n.dockerConfig(`{"credsStore":"desktop"}`), nil, `"desktop", which is not run`},
		"broken base64":   {n.dockerConfig(`{"auths":{%q:{"auth":"%%%%%%"}}}`, host), nil, "not base64"},
		"a registrytoken": {n.dockerConfig(`{"auths":{%q:{"registrytoken":%q}}}`, host, password), nil, "not supported"},
		"broken JSON":     {n.dockerConfig(`{"auths":{%q:{"auth":%q`, host, password), nil, ""},
		"another server":  {n, &Auth{Username: "me", Password: password, Server: "other.example"}, ""},
	} {
		if err := pull(c.m, c.a); !IsUnauthorized(err) || !strings.Contains(err.Error(), c.want) {
			n.Errorf("%s: %v", name, err)
		}
	}
	for _, server := range []string{"", host, "http://" + host} {
		if err := pull(n, &Auth{Username: "me", Password: password, Server: server}); err != nil {
			n.Errorf("given for %q: %v", server, err)
		}
	}
	if s := fmt.Sprintf("%v %+v %#v", Auth{Password: password}, &Auth{Password: password}, Auth{IdentityToken: password}); strings.Contains(s, password) {
		n.Errorf("formatted: %s", s)
	}
}

// testBearer goes through a token server, by password and by identity token.
func testBearer(n *node) {
	n.reg.push("v1", simple("bearer"))
	var refreshed atomic.Bool
	n.reg.rule(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			u, p, _ := r.BasicAuth()
			_ = r.ParseForm()
			ok := u == "me" && p == password
			if r.Method == http.MethodPost {
				ok = r.PostForm.Get("refresh_token") == password || r.PostForm.Get("password") == password
				refreshed.Store(r.PostForm.Get("grant_type") == "refresh_token")
			}
			if !ok {
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			fmt.Fprint(w, `{"token":"t","access_token":"t"}`)
			return true
		}
		if r.Header.Get("Authorization") == "Bearer t" {
			return false
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="s",scope="repository:app:pull"`, n.reg.host))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	if _, err := n.store.Pull(n.ctx(), n.ref("app:v1"), nil, nil); !IsUnauthorized(err) {
		n.Errorf("anonymous: %v", err)
	}
	m := n.dockerConfig(`{"auths":{%q:{"auth":%q}}}`, n.reg.host, auth64("me", password))
	m.pull(n.ref("app:v1"))
	m = n.dockerConfig(`{"auths":{%q:{"auth":%q,"identitytoken":%q}}}`, n.reg.host, auth64("<token>", ""), password)
	m.pull(n.ref("app:v1"))
	if !refreshed.Load() {
		n.Error("the identity token was not used")
	}
}

func TestMatchHost(t *testing.T) {
	for _, c := range []struct {
		pattern, host string
		want          bool
	}{
		{"a.example", "a.example", true}, {"*.example", "a.example", true}, {"*.example", "a.b.example", false},
		{"*", "a.example", false}, {"a*.example", "ab.example", true}, {"a.example:5000", "a.example", false},
		{"docker.io", canonicalHost("registry-1.docker.io"), true}, {"[", "x", false},
	} {
		if got := matchHost(c.pattern, c.host); got != c.want {
			t.Errorf("matchHost(%q, %q) = %v", c.pattern, c.host, got)
		}
	}
}

func FuzzDockerConfig(f *testing.F) {
	f.Add([]byte(`{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"*.x.example/team":{"identitytoken":"t"}},"credHelpers":{"a":"b"},"credsStore":"c"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		k := &keyring{named: map[string]string{}}
		if err := k.add(b); err != nil {
			if len(b) > 20 && strings.Contains(err.Error(), string(b)) {
				t.Fatalf("the error quotes the file: %v", err)
			}
			return
		}
		named, err := parseName("registry.example/team/app:v1")
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range k.lookup(named, nil, Keys{}) {
			if _, err := k.helper(named, a).GetCredentials(t.Context(), "", "registry.example"); err != nil {
				t.Fatal(err)
			}
		}
	})
}
