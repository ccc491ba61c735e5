package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"nodeagent/test/bed"
)

// testRegistry is an OCI registry that holds what a test puts there, in the bed's
// network namespace, with a handler before it that may do wrong.
type testRegistry struct {
	host string // 127.0.0.1:port

	mu        sync.Mutex
	blobs     map[digest.Digest][]byte
	manifests map[string]manifest // by tag or digest, of every repository
	asked     []string            // method and path of each request
	before    func(w http.ResponseWriter, r *http.Request) bool
}

type manifest struct {
	mediaType string
	body      []byte
}

func newRegistry(t *testing.T, b *bed.Bed) *testRegistry {
	t.Helper()
	reg := &testRegistry{blobs: map[digest.Digest][]byte{}, manifests: map[string]manifest{}}
	var l net.Listener
	if err := b.Do(func() (err error) { l, err = net.Listen("tcp4", "127.0.0.1:0"); return err }); err != nil {
		t.Fatal(err)
	}
	reg.host = l.Addr().String()
	srv := &http.Server{Handler: reg, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return reg
}

func (g *testRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	g.asked = append(g.asked, r.Method+" "+r.URL.Path)
	before := g.before
	g.mu.Unlock()
	if before != nil && before(w, r) {
		return
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
	if len(parts) < 3 {
		w.WriteHeader(http.StatusOK)
		return
	}
	kind, what := parts[len(parts)-2], parts[len(parts)-1]
	g.mu.Lock()
	m, isManifest := g.manifests[what]
	blob, isBlob := g.blobs[digest.Digest(what)]
	g.mu.Unlock()
	switch {
	case kind == "manifests" && isManifest:
		w.Header().Set("Content-Type", m.mediaType)
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(m.body).String())
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(m.body))
	case kind == "blobs" && isBlob:
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob))
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// rule puts a handler before the registry; nil takes it away.
func (g *testRegistry) rule(f func(w http.ResponseWriter, r *http.Request) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.before = f
}

// count is how many requests had all the parts.
func (g *testRegistry) count(parts ...string) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range g.asked {
		ok := true
		for _, p := range parts {
			ok = ok && strings.Contains(a, p)
		}
		if ok {
			n++
		}
	}
	return n
}

func (g *testRegistry) blob(mediaType string, b []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.blobs[d.Digest] = b
	return d
}

// tag stores a manifest or an index under its digest, and a tag if not "".
func (g *testRegistry) tag(tag, mediaType string, v any) ocispec.Descriptor {
	b := mustJSON(v)
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.manifests[d.Digest.String()] = manifest{mediaType, b}
	if tag != "" {
		g.manifests[tag] = manifest{mediaType, b}
	}
	return d
}

// built is an image as parts, for a registry or an archive.
type built struct {
	config   []byte
	layers   [][]byte // gzipped
	manifest ocispec.Manifest
}

// build makes an image of layers of files; a name ending in "/" is a directory,
// a value starting with "->" a link.
func build(arch string, cfg ocispec.ImageConfig, layers ...map[string]string) built {
	var b built
	img := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: arch}, Config: cfg}
	img.RootFS.Type = "layers"
	b.manifest = ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, files := range layers {
		raw := tarOf(files)
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, digest.FromBytes(raw))
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		_, _ = w.Write(raw)
		_ = w.Close()
		b.layers = append(b.layers, z.Bytes())
		b.manifest.Layers = append(b.manifest.Layers, descriptor(ocispec.MediaTypeImageLayerGzip, z.Bytes()))
	}
	b.config = mustJSON(img)
	b.manifest.Config = descriptor(ocispec.MediaTypeImageConfig, b.config)
	return b
}

func descriptor(mediaType string, b []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func tarOf(files map[string]string) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range sortedKeys(files) {
		h := &tar.Header{Name: name, Mode: 0o755, Size: int64(len(files[name])), Typeflag: tar.TypeReg}
		if target, ok := strings.CutPrefix(files[name], "->"); ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, target, 0
		} else if strings.HasSuffix(name, "/") {
			h.Typeflag, h.Size = tar.TypeDir, 0
		}
		if err := w.WriteHeader(h); err != nil {
			panic(err)
		}
		if h.Typeflag == tar.TypeReg {
			_, _ = w.Write([]byte(files[name]))
		}
	}
	_ = w.Close()
	return buf.Bytes()
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	return union(keys)
}

// push stores an image and tags it if tag is not "".
func (g *testRegistry) push(tag string, b built) ocispec.Descriptor {
	g.blob(ocispec.MediaTypeImageConfig, b.config)
	for _, l := range b.layers {
		g.blob(ocispec.MediaTypeImageLayerGzip, l)
	}
	return g.tag(tag, ocispec.MediaTypeImageManifest, b.manifest)
}

// pushIndex stores an index of images by architecture.
func (g *testRegistry) pushIndex(tag string, images map[string]built) ocispec.Descriptor {
	idx := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for arch, b := range images {
		d := g.push("", b)
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		idx.Manifests = append(idx.Manifests, d)
	}
	return g.tag(tag, ocispec.MediaTypeImageIndex, idx)
}

// simple is an image of this machine that differs by its text.
func simple(text string) built {
	return build(runtime.GOARCH, ocispec.ImageConfig{Cmd: []string{"/app"}, Env: []string{"WHO=" + text}},
		map[string]string{"etc/": "", "etc/passwd": "root:x:0:0::/:\n", "app": text})
}

// dockerSave is the archive of "docker save".
func dockerSave(name string, b built) []byte {
	files := map[string]string{}
	var layers []string
	for i, l := range b.layers {
		r, _ := gzip.NewReader(bytes.NewReader(l))
		var raw bytes.Buffer
		_, _ = raw.ReadFrom(r)
		p := fmt.Sprintf("l%d/layer.tar", i)
		files[p] = raw.String()
		layers = append(layers, p)
	}
	files["config.json"] = string(b.config)
	files["manifest.json"] = string(mustJSON([]any{map[string]any{"Config": "config.json", "RepoTags": []string{name}, "Layers": layers}}))
	return tarOf(files)
}

// ociLayout is the archive of an OCI image layout; names "" leaves the name out.
func ociLayout(images map[string]built) []byte {
	files := map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`}
	idx := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}}
	add := func(b []byte) { files["blobs/sha256/"+digest.FromBytes(b).Encoded()] = string(b) }
	for name, b := range images {
		add(b.config)
		for _, l := range b.layers {
			add(l)
		}
		m := mustJSON(b.manifest)
		add(m)
		d := descriptor(ocispec.MediaTypeImageManifest, m)
		if name != "" {
			d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
		}
		idx.Manifests = append(idx.Manifests, d)
	}
	files["index.json"] = string(mustJSON(idx))
	return tarOf(files)
}
