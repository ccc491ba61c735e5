package image

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

type snapshotInfo = snapshots.Info

// holdBlobs stops blobs half-way until release is closed, or the client goes.
func holdBlobs(arrived, release chan struct{}) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		select {
		case arrived <- struct{}{}:
		default:
		}
		select {
		case <-release:
			return false
		case <-r.Context().Done():
			return true
		}
	}
}

// testStuck: a registry that says nothing more ends at the progress deadline,
// and one that is slow but moves does not.
func testStuck(n *node) {
	n = n.with(n.T, func(c *Config) { c.ProgressDeadline = 3 * time.Second })
	n.reg.push("v1", simple("stuck"))
	stalled := func(what, phase string) {
		n.Helper()
		start := time.Now()
		_, err := n.store.Pull(n.ctx(), n.ref("app:v1"), nil, nil)
		if !IsStalled(err) || !IsRegistryUnavailable(err) || !IsRetryable(err) || !strings.Contains(err.Error(), phase) {
			n.Errorf("%s: %v", what, err)
		}
		if d := time.Since(start); d < 2900*time.Millisecond || d > 20*time.Second {
			n.Errorf("%s: ended after %s", what, d)
		}
		n.Log(err)
		n.absent(n.ref("app:v1"))
	}
	n.reg.rule(func(w http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true })
	stalled("no answer", "(resolving)")
	n.reg.rule(holdBlobs(make(chan struct{}, 1), nil))
	stalled("no blob", "blobs complete")
	n.reg.rule(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		w.Header().Set("Content-Length", "100000")
		_, _ = w.Write(bytes.Repeat([]byte("x"), 50))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	})
	stalled("half a blob", "blobs complete")
	// Slow, but alive: 6 s in all, never 3 s without a byte.
	// containerd counts in steps of 1 MiB.
	blob := make([]byte, 9<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range blob {
		blob[i] = byte(r.Uint32())
	}
	big := build(runtime.GOARCH, ocispec.ImageConfig{}, map[string]string{"blob": string(blob)})
	n.reg.push("slow", big)
	layer := big.layers[0]
	n.reg.rule(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, big.manifest.Layers[0].Digest.String()) || r.Method != http.MethodGet {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(layer)))
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for part := range slices.Chunk(layer, len(layer)/6+1) {
			_, _ = w.Write(part)
			w.(http.Flusher).Flush()
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return true
			}
		}
		return true
	})
	if _, err := n.store.Pull(n.ctx(), n.ref("app:slow"), nil, nil); err != nil {
		n.Errorf("slow: %v", err)
	}
}

// testBroken: each fault of a registry has its class, its bound, and leaves
// nothing under the name.
func testBroken(n *node) {
	img := simple("broken")
	n.reg.push("v1", img)
	layer := img.manifest.Layers[0].Digest.String()
	status := func(code int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(code)
			return true
		}
	}
	cases := []struct {
		name string
		rule func(http.ResponseWriter, *http.Request) bool
		is   func(error) bool
	}{
		{"429", status(429), IsRegistryUnavailable},
		{"500", status(500), IsRegistryUnavailable},
		{"503", status(503), IsRegistryUnavailable},
		{"401", status(401), IsUnauthorized},
		{"403", status(403), IsUnauthorized},
		{"404", status(404), IsNotFound},
		{"redirect loop", func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}, IsRegistryUnavailable},
		{"connection cut", func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, layer) {
				panic(http.ErrAbortHandler)
			}
			return false
		}, IsRetryable},
		{"digest mismatch", func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, layer) {
				return false
			}
			b := bytes.Clone(img.layers[0])
			b[len(b)/2] ^= 1
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
			return true
		}, IsRetryable},
		{"manifest is HTML", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "<html>sign in to the hotel</html>")
			return true
		}, func(err error) bool { return err != nil }},
	}
	for _, c := range cases {
		n.reg.rule(c.rule)
		start := time.Now()
		_, err := n.store.Pull(n.ctx(), n.ref("app:v1"), nil, nil)
		if err == nil || !c.is(err) {
			n.Errorf("%s: %v", c.name, err)
		}
		if d := time.Since(start); d > 15*time.Second {
			n.Errorf("%s: took %s", c.name, d)
		}
		n.Logf("%s: %v", c.name, err)
		n.absent(n.ref("app:v1"))
	}
	_, err := n.store.Pull(n.ctx(), "127.0.0.1:1/app:v1", nil, nil)
	if !IsRegistryUnavailable(err) {
		n.Errorf("nobody listens: %v", err)
	}
	n.reg.rule(nil)
	n.pull(n.ref("app:v1"))
}

// testMirror: hosts.toml sends a registry's pulls elsewhere, and the
// registry's credentials do not follow.
func testMirror(n *node) {
	n.reg.push("v1", simple("mirror"))
	var sent atomic.Bool
	n.reg.rule(func(w http.ResponseWriter, r *http.Request) bool {
		if _, _, ok := r.BasicAuth(); ok {
			sent.Store(true)
			return false
		}
		if sent.Load() || r.Header.Get("Authorization") != "" {
			return false
		}
		return basic("mirror", "mirror")(w, r)
	})
	dir := n.TempDir()
	// containerd, which reads it, must be able to.
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			n.Fatal(err)
		}
	}
	hosts := fmt.Sprintf("server = \"http://127.0.0.1:1\"\n[host.\"http://%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", n.reg.host)
	if err := os.MkdirAll(dir+"/registry.example", 0o755); err != nil {
		n.Fatal(err)
	}
	if err := os.WriteFile(dir+"/registry.example/hosts.toml", []byte(hosts), 0o644); err != nil {
		n.Fatal(err)
	}
	ref := "registry.example/team/app:v1"
	m := n.with(n.T, func(c *Config) { c.HostsDir = dir })
	if _, err := m.store.Pull(n.ctx(), ref, &Auth{Username: "me", Password: password}, nil); err == nil || sent.Load() {
		n.Errorf("%v; credentials sent to the mirror: %v", err, sent.Load())
	}
	m = n.dockerConfig(`{"auths":{%q:{"auth":%q}}}`, n.reg.host, auth64("mirror", "mirror"))
	m = m.with(n.T, func(c *Config) { c.HostsDir = dir })
	img := m.pull(ref)
	if img.Name != ref || !sent.Load() {
		n.Errorf("%+v, own credentials sent: %v", img, sent.Load())
	}
}

// testHostile is what an image's author may try (CVE-2026-53493 and others).
func testHostile(n *node) {
	good := simple("hostile")
	desc := n.reg.push("good", good)
	desc.Platform = &ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	index := func(ds ...ocispec.Descriptor) ocispec.Index {
		return ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: ds}
	}
	// Indexes inside each other.
	deep := desc
	for range maxDepth + 1 {
		deep = n.reg.tag("deep", ocispec.MediaTypeImageIndex, index(deep))
	}
	// More descriptors than an image can have.
	n.reg.tag("wide", ocispec.MediaTypeImageIndex, index(slices.Repeat([]ocispec.Descriptor{desc}, maxDescriptors+1)...))
	// A config and a manifest over the limit.
	pad := func(v any, n int) []byte { return append(mustJSON(v), bytes.Repeat([]byte(" "), n)...) }
	fat := good.manifest
	config := pad(ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}}, maxConfig)
	fat.Config = n.reg.blob(ocispec.MediaTypeImageConfig, config)
	n.reg.tag("config", ocispec.MediaTypeImageManifest, fat)
	// No container image at all; a layer list that is not the config's.
	artifact := good.manifest
	artifact.Config.MediaType = "application/vnd.example.chart"
	n.reg.tag("artifact", ocispec.MediaTypeImageManifest, artifact)
	short := good.manifest
	short.Layers = append(short.Layers, short.Layers[0])
	n.reg.tag("layers", ocispec.MediaTypeImageManifest, short)
	for _, tag := range []string{"deep", "wide", "config", "artifact", "layers"} {
		start := time.Now()
		_, err := n.store.Pull(n.ctx(), n.ref("app:"+tag), nil, nil)
		if err == nil || time.Since(start) > 15*time.Second {
			n.Errorf("%s: %v after %s", tag, err, time.Since(start))
		}
		n.Logf("%s: %.300v", tag, err)
		n.absent(n.ref("app:" + tag))
	}
	small := n.with(n.T, func(c *Config) { c.MaxSize = 200 })
	if _, err := small.store.Pull(n.ctx(), n.ref("app:good"), nil, nil); err == nil || IsRetryable(err) {
		n.Errorf("over the size limit: %v", err)
	}
	// Labels of an image never become containerd's.
	n.reg.push("labels", build(runtime.GOARCH, ocispec.ImageConfig{Labels: map[string]string{"containerd.io/gc.root": "x", "org.example": "y"}}, map[string]string{"a": "labels"}))
	img := n.pull(n.ref("app:labels"))
	record, err := n.client.ImageService().Get(n.store.namespaced(n.ctx()), img.Name)
	if err != nil || record.Labels["org.example"] != "" || record.Labels["containerd.io/gc.root"] != "" {
		n.Errorf("labels = %v, %v", record.Labels, err)
	}
}

func TestName(t *testing.T) {
	d := "sha256:" + strings.Repeat("a", 64)
	for in, want := range map[string]string{
		"busybox": "docker.io/library/busybox:latest", "a/b:v1": "docker.io/a/b:v1", "r.example/x": "r.example/x:latest",
		"r.example:5000/x/y:z": "r.example:5000/x/y:z", "x@" + d: "docker.io/library/x@" + d, "x:v1@" + d: "docker.io/library/x@" + d,
		"index.docker.io/library/x": "docker.io/library/x:latest", "localhost/x": "localhost/x:latest",
	} {
		if got, err := Name(in); err != nil || got != want {
			t.Errorf("Name(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func FuzzName(f *testing.F) {
	f.Add("busybox")
	f.Add("r.example:5000/x:y@sha256:" + strings.Repeat("0", 64))
	f.Fuzz(func(t *testing.T, ref string) {
		name, err := Name(ref)
		if err != nil {
			if !IsInvalidName(err) {
				t.Fatal(err)
			}
			return
		}
		if again, err := Name(name); err != nil || again != name {
			t.Fatalf("%q -> %q -> %q, %v", ref, name, again, err)
		}
	})
}
