package node

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// pullCanary is the password of a registry.
const pullCanary = "canary-of-a-registry-3391"

// privateRegistry serves the registry's images to who knows the password.
func privateRegistry(t *testing.T, b *bed.Bed, r *registry) (host string) {
	t.Helper()
	var l net.Listener
	must(t, b.Do(func() (err error) { l, err = net.Listen("tcp4", "127.0.0.1:0"); return err }))
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if user, password, ok := req.BasicAuth(); !ok || user != "me" || password != pullCanary {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.ServeHTTP(w, req)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })
	return l.Addr().String()
}

// says waits until a container of the pod waits with this reason and a message
// of these words.
func (n *rowsNode) says(t *testing.T, name, reason string, words ...string) {
	t.Helper()
	n.pod(t, name, reason+" "+strings.Join(words, ", "), func(p *corev1.Pod) bool {
		for _, c := range p.Status.ContainerStatuses {
			w := c.State.Waiting
			ok := w != nil && w.Reason == reason
			for _, word := range words {
				ok = ok && strings.Contains(w.Message, word)
			}
			if ok {
				return true
			}
		}
		return false
	})
}

// TestImagesOfPods: why an image is not there is said in kubelet's words; a pull
// secret opens a private registry to the pods that have it and to no other; and
// archives beside the daemon are images that stay.
func TestImagesOfPods(t *testing.T) {
	n := newRowsNode(t, bed.AgentOptions{Args: []string{"-v", "9"}})
	f := &faultNode{T: t, ctx: n.ctx, b: n.b, a: n.a}
	host := privateRegistry(t, n.b, newRegistry(f))
	of := func(img, policy, more string) string {
		return spec(more, "image: \""+img+"\"\nimagePullPolicy: "+policy+"\n"+show)
	}
	private, preloaded := host+"/good:v1", "localhost/preloaded/app:v1"
	secrets := "imagePullSecrets: [{name: none}, {name: pull}]"
	n.write(t, "badname", of("Not/A:name:", "IfNotPresent", ""))
	n.write(t, "never", of("localhost/nobody/has:v1", "Never", ""))
	n.write(t, "away", of("127.0.0.1:1/app:v1", "IfNotPresent", ""))
	n.write(t, "waiting", of(preloaded, "Never", ""))
	n.write(t, "mine", of(private, "IfNotPresent", secrets))
	n.says(t, "badname", "InvalidImageName", `Failed to apply default image tag "Not/A:name:"`)
	n.says(t, "never", "ErrImageNeverPull", `Container image "localhost/nobody/has:v1" is not present with pull policy of Never`)
	n.says(t, "away", "RegistryUnavailable", "image pull failed for 127.0.0.1:1/app:v1 because the registry is unavailable: ")
	n.says(t, "waiting", "ErrImageNeverPull")
	n.says(t, "mine", "ErrImagePull", private)

	auth := base64.StdEncoding.EncodeToString([]byte("me:" + pullCanary))
	must(t, n.a.WriteManifest(".pull.yaml", fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: pull}\ntype: kubernetes.io/dockerconfigjson\nstringData:\n  .dockerconfigjson: '{\"auths\":{\"%s\":{\"auth\":\"%s\"}}}'\n", host, auth)))
	must(t, os.Chmod(filepath.Join(n.a.Manifests, ".pull.yaml"), 0o600))
	must(t, os.Rename(filepath.Join(n.a.Manifests, ".pull.yaml"), filepath.Join(n.a.Manifests, "pull.yaml")))
	n.pod(t, "mine", "running with its secret", inPhase(corev1.PodRunning))
	n.write(t, "theirs", of(private, "IfNotPresent", ""))
	n.write(t, "unseen", of(private, "Never", ""))
	n.write(t, "also", of(private, "Never", secrets))
	n.says(t, "theirs", "ErrImagePull")
	n.says(t, "unseen", "ErrImageNeverPull", "is not present with pull policy of Never")
	n.pod(t, "also", "running on the image that is there", inPhase(corev1.PodRunning))

	n.preload(t, preloaded)
	n.pod(t, "waiting", "running on a preloaded image", inPhase(corev1.PodRunning))
	n.says(t, "away", "ImagePullBackOff", `Back-off pulling image "127.0.0.1:1/app:v1": RegistryUnavailable: image pull failed for`)
	n.prune(t, preloaded)

	found, err := bed.FindBytes([]byte(pullCanary), n.a.Log(), n.b.ContainerdLog(), n.a.RunDir(), n.a.StateDir(), n.a.RootDir(), n.a.PodLogs())
	must(t, err)
	more, err := bed.FindBytes([]byte(auth), n.a.Log(), n.b.ContainerdLog(), n.a.RunDir(), n.a.StateDir(), n.a.RootDir(), n.a.PodLogs())
	must(t, err)
	if len(found)+len(more) > 0 {
		t.Errorf("the password of a registry is in %v %v", found, more)
	}
}

// preload puts an archive of one image into the daemon's directory of images.
func (n *rowsNode) preload(t *testing.T, name string) {
	t.Helper()
	root, err := bed.ModuleRoot(n.ctx)
	must(t, err)
	tool, err := image.Podtool(n.ctx, root)
	must(t, err)
	s := image.ExampleSpec(tool)
	s.Name = name
	s.Files["/name"] = image.File{Mode: 0o644, Data: []byte(name)}
	var tar bytes.Buffer
	must(t, image.Write(&tar, s))
	dir := filepath.Join(n.a.StateDir(), "images")
	must(t, os.WriteFile(filepath.Join(dir, ".app.tmp"), tar.Bytes(), 0o600))
	must(t, os.Rename(filepath.Join(dir, ".app.tmp"), filepath.Join(dir, "app.tar")))
}

// prune demands that a pinned image that nothing uses stays.
func (n *rowsNode) prune(t *testing.T, name string) {
	t.Helper()
	_ = n.b.WaitCatches(n.ctx, "podtool", 15)
	must(t, n.a.RemoveManifest("waiting"))
	f := &faultNode{T: t, ctx: n.ctx, b: n.b, a: n.a}
	f.until("its pod is gone", rowLimit, func() bool { return f.gone("waiting") })
	out, err := n.a.CLI(n.ctx, "images", "prune")
	must(t, err)
	if list, err := n.a.CLI(n.ctx, "images", "-o", "name"); err != nil || strings.Contains(out, name) || !strings.Contains(list, name) {
		t.Errorf("prune removed %q and left %q, %v", out, list, err)
	}
}
