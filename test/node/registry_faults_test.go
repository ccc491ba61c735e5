package node

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/image-spec/identity"
	"golang.org/x/sys/unix"

	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// TestRegistryFaults: a registry that hangs or refuses holds up only the pods
// that want something from it, says so in their status, and is asked again.
func TestRegistryFaults(t *testing.T) {
	n := newFaultNode(t, nil)
	r := newRegistry(n)
	n.suffer("registry", func(n *faultNode) { n.registry(r) })
}

// repositories each hold an image of their own: equal content would be fetched
// once for all. Their names say what is wrong with them while broken is set.
var repositories = []string{"good", "stuck", "missing"}

type registry struct {
	addr      string
	blobs     map[string][]byte
	manifests map[string]string // by repository: digest
	broken    atomic.Bool
	stuck     chan struct{} // somebody asked for what never comes
}

// newRegistry starts one in the bed's network namespace.
func newRegistry(n *faultNode) *registry {
	n.Helper()
	root, err := bed.ModuleRoot(n.ctx)
	must(n.T, err)
	tool, err := image.Podtool(n.ctx, root)
	must(n.T, err)
	r := &registry{blobs: map[string][]byte{}, manifests: map[string]string{}, stuck: make(chan struct{}, 16)}
	for _, name := range repositories {
		spec := image.ExampleSpec(tool)
		spec.Files["/name"] = image.File{Mode: 0o644, Data: []byte(name)}
		var layout bytes.Buffer
		must(n.T, image.Write(&layout, spec))
		must(n.T, r.load(name, &layout))
	}
	var l net.Listener
	must(n.T, n.b.Do(func() (err error) { l, err = net.Listen("tcp4", "127.0.0.1:0"); return err }))
	r.addr = l.Addr().String()
	server := &http.Server{Handler: r, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	n.Cleanup(func() { server.Close(); <-done })
	return r
}

// load reads an OCI layout of one image.
func (r *registry) load(name string, layout io.Reader) error {
	for t := tar.NewReader(layout); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		b, err := io.ReadAll(t)
		if err != nil {
			return err
		}
		if hash, ok := strings.CutPrefix(h.Name, "blobs/sha256/"); ok {
			r.blobs["sha256:"+hash] = b
		}
		if h.Name == "index.json" {
			var index struct{ Manifests []struct{ Digest string } }
			if err := json.Unmarshal(b, &index); err != nil {
				return err
			}
			r.manifests[name] = index.Manifests[0].Digest
		}
	}
}

// ServeHTTP answers /v2/<repository>/{manifests,blobs}/<what>.
func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	parts := strings.Split(strings.TrimPrefix(req.URL.Path, "/v2/"), "/")
	if len(parts) != 3 {
		return // the version check
	}
	name, kind, what := parts[0], parts[1], parts[2]
	switch {
	case name == "stuck" && kind == "blobs" && r.broken.Load():
		r.stuck <- struct{}{}
		<-req.Context().Done()
		return
	case name == "missing" && r.broken.Load():
		http.NotFound(w, req)
		return
	case kind == "manifests":
		what = r.manifests[name]
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w.Header().Set("Docker-Content-Digest", what)
	}
	b, ok := r.blobs[what]
	if !ok {
		http.NotFound(w, req)
		return
	}
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(b))
}

// pull writes a pod that wants the image of a repository.
func (n *faultNode) pull(r *registry, name string) {
	n.Helper()
	text := onePod(name, "Always", "[/podtool, sleep, forever, "+name+"]")
	must(n.T, n.a.WriteManifest(name, strings.ReplaceAll(text, image.Example, r.addr+"/"+name+":v1")))
}

// registry lets one pod's pull hang and another's be refused.
func (n *faultNode) registry(r *registry) {
	r.broken.Store(true)
	n.pull(r, "missing")
	n.await("missing", "ErrImagePull", 10*time.Second, waitingFor("ErrImagePull"))
	n.pull(r, "stuck")
	select {
	case <-r.stuck:
	case <-n.ctx.Done():
		n.Fatal("nobody asked for the stuck image")
	}
	n.pull(r, "good")
	n.write("local", "Always", "[/podtool, sleep, forever]")
	n.ready("local", 20*time.Second)
	n.await("missing", "ImagePullBackOff", 20*time.Second, waitingFor("ImagePullBackOff"))
	must(n.T, n.a.RemoveManifest("stuck"))
	n.until("the pod whose pull hangs is gone", 20*time.Second, func() bool { return n.gone("stuck") })
	r.broken.Store(false)
	n.ready("good", 20*time.Second)
	n.ready("missing", 40*time.Second)
	n.oneRuns("missing")
	n.layerLost(r)
	n.dropImages(r, "good", "missing")
}

// layerLost: an image whose layer is neither unpacked nor in the content store
// any more is pulled again.
func (n *faultNode) layerLost(r *registry) {
	n.Helper()
	_ = n.b.WaitCatches(n.ctx, "podtool", int(unix.SIGTERM))
	must(n.T, n.a.RemoveManifest("good"))
	n.until("good is gone", 20*time.Second, func() bool { return n.gone("good") })
	c, err := n.b.Dial()
	must(n.T, err)
	defer c.Close()
	img, err := c.GetImage(n.ctx, r.addr+"/good:v1")
	must(n.T, err)
	chain, err := img.RootFS(n.ctx)
	must(n.T, err)
	m, err := images.Manifest(n.ctx, c.ContentStore(), img.Target(), img.Platform())
	must(n.T, err)
	must(n.T, c.ContentStore().Delete(n.ctx, m.Layers[0].Digest))
	must(n.T, c.SnapshotService("overlayfs").Remove(n.ctx, identity.ChainID(chain).String()))
	n.pull(r, "good")
	n.ready("good", 20*time.Second)
}

// dropImages ends the pods that pulled, and removes what they pulled.
func (n *faultNode) dropImages(r *registry, names ...string) {
	n.Helper()
	_ = n.b.WaitCatches(n.ctx, "podtool", int(unix.SIGTERM))
	n.removeManifests()
	c, err := n.b.Dial()
	must(n.T, err)
	defer c.Close()
	for _, name := range names {
		n.until(name+" is gone", 20*time.Second, func() bool { return n.gone(name) })
		must(n.T, c.ImageService().Delete(n.ctx, r.addr+"/"+name+":v1", images.SynchronousDelete()))
	}
}

// gone tells whether the daemon shows no such pod.
func (n *faultNode) gone(name string) bool {
	ctx, cancel := context.WithTimeout(n.ctx, 5*time.Second)
	defer cancel()
	pods, err := n.a.Pods(ctx)
	if err != nil {
		return false
	}
	for _, p := range pods {
		if p.Name == name+"-node" {
			return false
		}
	}
	return true
}
