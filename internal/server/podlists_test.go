package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

func TestPodLists(t *testing.T) {
	b := newBed(t, nil).run(t)
	boss := b.boss(t)
	for _, path := range []string{"/pods", "/runningpods/"} {
		if got := ask(t, boss, http.MethodGet, b.url+path); got.code != 200 || !strings.Contains(got.body, `"items":[]`) || !json.Valid([]byte(got.body)) {
			t.Errorf("%s of none: %d %s", path, got.code, got.body)
		}
	}
	p, _ := b.logged(t)
	still := p.DeepCopy()
	still.UID, still.Name, still.Status.ContainerStatuses = "u2", "still", nil
	b.node.mu.Lock()
	b.node.all = append(b.node.all, still)
	b.node.mu.Unlock()
	for path, want := range map[string]string{"/pods": "web still", "/runningpods": "web"} {
		got := ask(t, boss, http.MethodGet, b.url+path)
		var list corev1.PodList
		if err := json.Unmarshal([]byte(got.body), &list); err != nil || list.Kind != "PodList" || list.APIVersion != "v1" {
			t.Fatalf("%s: %v: %s", path, err, got.body)
		}
		var found []string
		for _, p := range list.Items {
			found = append(found, p.Name)
		}
		if strings.Join(found, " ") != want || got.head.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v, want %s", path, found, want)
		}
		if path == "/runningpods" && (len(list.Items[0].Spec.Containers) != 1 || list.Items[0].Spec.Containers[0].Image != "i" || list.Items[0].UID != "u1") {
			t.Errorf("what runs: %s", got.body)
		}
	}
}

func TestHealthAndMetrics(t *testing.T) {
	b := newBed(t, func(cfg *NodeAPIConfig) {
		cfg.Checks = Checks{{"pods", func() error { return nil }}, {"runtime", func() error { return errors.New("a secret path") }}}
		cfg.Metrics = map[string]func(context.Context, io.Writer) error{
			"":       func(_ context.Context, w io.Writer) error { _, err := io.WriteString(w, "a 1\n"); return err },
			"probes": func(_ context.Context, w io.Writer) error { _, err := io.WriteString(w, "b 1\n"); return err },
			"broken": func(_ context.Context, w io.Writer) error {
				_, _ = io.WriteString(w, "c ")
				return errors.New("no more")
			},
			"away": func(context.Context, io.Writer) error { return errors.New("nothing to read") },
		}
		cfg.Summary = func(_ context.Context, brief bool) (any, error) { return map[string]bool{"brief": brief}, nil }
	}).run(t)
	boss := b.boss(t)
	for path, want := range map[string]answer{
		"/healthz":          {code: 500, body: "unhealthy"},
		"/healthz/pods":     {code: 200, body: "ok"},
		"/healthz/syncloop": {code: 200, body: "ok"},
		"/healthz/log":      {code: 200, body: "ok"},
		"/healthz/ping":     {code: 200, body: "ok"},
		"/healthz/runtime":  {code: 500, body: "unhealthy"},
		"/healthz/none":     {code: 404, body: "404 page not found\n"},
		"/metrics":          {code: 200, body: "a 1\n"},
		"/metrics/probes":   {code: 200, body: "b 1\n"},
		"/metrics/none":     {code: 404, body: "404 page not found\n"},
		"/metrics/away":     {code: 500, body: "Internal Error: nothing to read\n"},
		"/stats":            {code: 404, body: "404 page not found\n"},
		"/stats/other":      {code: 404, body: "404 page not found\n"},
		"/stats/summary":    {code: 200, body: "{\"brief\":false}\n"},
		"/stats/summary?only_cpu_and_memory=true": {code: 200, body: "{\"brief\":true}\n"},
		"/stats/summary?only_cpu_and_memory=yes":  {code: 200, body: "{\"brief\":false}\n"},
		"/checkpoint/a/b/c":                       {code: 404, body: "404 page not found\n"},
		"/debug/pprof/":                           {code: 404, body: "404 page not found\n"},
		"/":                                       {code: 404, body: "404 page not found\n"},
	} {
		if got := ask(t, boss, http.MethodGet, b.url+path); got.code != want.code || got.body != want.body {
			t.Errorf("%s: %d %q, want %d %q", path, got.code, got.body, want.code, want.body)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/metrics/broken", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := boss.Do(req); err == nil {
		defer resp.Body.Close()
		if text, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("half the figures look like all: %q", text)
		}
	}
}

// TestConfigzHidesSecrets: what lets somebody in elsewhere is not shown, what an
// operator looks for is.
func TestConfigzHidesSecrets(t *testing.T) {
	cfg := &kubeletv1beta1.KubeletConfiguration{
		StaticPodURL:       "https://user:canary1@host/pods?token=canary2#canary3",
		StaticPodURLHeader: map[string][]string{"Authorization": {"Bearer canary4", "canary5"}},
		TLSPrivateKeyFile:  "/etc/key.pem", MaxPods: 77,
	}
	b := newBed(t, func(c *NodeAPIConfig) { c.Kubelet = func() *kubeletv1beta1.KubeletConfiguration { return cfg } }).run(t)
	got := ask(t, b.boss(t), http.MethodGet, b.url+"/configz")
	var shown struct {
		KubeletConfig kubeletv1beta1.KubeletConfiguration `json:"kubeletconfig"`
	}
	if err := json.Unmarshal([]byte(got.body), &shown); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(got.body, "canary") || shown.KubeletConfig.StaticPodURL != "https://host/pods" || shown.KubeletConfig.MaxPods != 77 {
		t.Errorf("it shows %s", got.body)
	}
	if cfg.StaticPodURLHeader["Authorization"][0] != "Bearer canary4" {
		t.Error("the configuration itself was changed")
	}
	cfg.StaticPodURL = "https://canary\x7f@:"
	if got := ShownConfig(cfg).StaticPodURL; strings.Contains(got, "canary") {
		t.Errorf("an address that cannot be read is shown as %q", got)
	}
}

// TestConfigHasNoOtherSecrets: a field that sounds like one is decided upon here.
func TestConfigHasNoOtherSecrets(t *testing.T) {
	decided := []string{
		"StaticPodURL", "StaticPodURLHeader", // masked
		"TLSPrivateKeyFile",                                                                   // a path
		"ConfigMapAndSecretChangeDetectionStrategy", "ImagePullCredentialsVerificationPolicy", // choices
	}
	of := reflect.TypeFor[kubeletv1beta1.KubeletConfiguration]()
	for i := range of.NumField() {
		name := of.Field(i).Name
		for _, sound := range []string{"secret", "token", "password", "header", "key", "credential", "url"} {
			if strings.Contains(strings.ToLower(name), sound) && !slices.Contains(decided, name) {
				t.Errorf("%s sounds like a secret: mask it in ShownConfig, or say here why not", name)
			}
		}
	}
}

// FuzzNodeAPI: whatever is asked by whomever, the answer is one of those that there
// are, never a redirect, and never anything but a refusal for who has no rights.
func FuzzNodeAPI(f *testing.F) {
	b := newBed(f, nil)
	b.logged(f)
	b.reviewer.set(func() { b.reviewer.tokens["good"], b.reviewer.tokens["meek"] = "boss", "clerk" })
	for _, s := range [][3]string{
		{"GET", "/containerLogs/ns/web/app?tailLines=1", "good"}, {"GET", "/exec/../pods", "good"}, {"POST", "//exec/a/b/c", "meek"},
		{"GET", "/pods/%2e%2e/configz", ""}, {"GET", "/healthz/ping?verbose", "good"}, {"PRI", "*", "good"}, {"CONNECT", "/x:1", "meek"},
		{"GET", "/metrics/../../etc/passwd", "good"}, {"GET", "/containerLogs/ns/web/app?stream=Stderr&limitBytes=1", "good"},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, method, target, token string) {
		r, err := http.NewRequestWithContext(t.Context(), method, "https://node", http.NoBody)
		if err != nil {
			return // no client can send it
		}
		if r.URL, err = r.URL.Parse(target); err != nil || r.URL.Query().Has("follow") {
			return // which would go on
		}
		if strings.ContainsAny(token, "\r\n") {
			return
		}
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		b.ServeHTTP(w, r)
		switch w.Code {
		case 200, 400, 404, 405, 422:
			if token := strings.TrimSpace(token); token != "good" && w.Code != 405 {
				t.Errorf("%s %q by %q is answered with %d", method, target, token, w.Code)
			}
		case 401, 403:
		default:
			t.Errorf("%s %q by %q is answered with %d", method, target, token, w.Code)
		}
		if w.Header().Get("Location") != "" {
			t.Errorf("%s %q leads to %s", method, target, w.Header().Get("Location"))
		}
	})
}
