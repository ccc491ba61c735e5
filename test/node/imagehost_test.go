package node

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"nodeagent/test/bed"
)

// imageHost serves the test images inside the bed, every one of them as any
// repository's v1, and returns its host.
func imageHost(t *testing.T, b *bed.Bed) string {
	t.Helper()
	data, err := bed.ImageTar(t.Context())
	must(t, err)
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		files[h.Name], err = io.ReadAll(r)
		must(t, err)
	}
	var index struct {
		Manifests []struct{ MediaType, Digest string }
	}
	must(t, json.Unmarshal(files["index.json"], &index))
	blob := func(digest string) []byte { return files["blobs/"+strings.Replace(digest, ":", "/", 1)] }
	var l net.Listener
	must(t, b.Do(func() (err error) { l, err = net.Listen("tcp4", "127.0.0.1:0"); return err }))
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		what := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		kind := "application/octet-stream"
		if what == "v1" {
			what = index.Manifests[0].Digest
		}
		for _, m := range index.Manifests {
			if m.Digest == what {
				kind = m.MediaType
			}
		}
		text := blob(what)
		if text == nil && what != "" && what != "v2" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Docker-Content-Digest", what)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return l.Addr().String()
}

// pull tries a registry that has the image, one that has not, and none at all.
func (c *cli) pull(t *testing.T) {
	host := imageHost(t, c.b)
	name := host + "/some/app:v1"
	o := c.want(t, 0, "images", "pull", name)
	if o.out != name+"\n" || !strings.Contains(o.err, "downloading") {
		t.Errorf("pull says %q and %q", o.out, o.err)
	}
	if o := c.want(t, 0, "images", "pull", "-q", name); o.out != name+"\n" || o.err != "" {
		t.Errorf("a quiet pull says %q and %q", o.out, o.err)
	}
	c.want(t, 0, "images", "rm", name)
	if got, code := c.onPTY(t, "", "images", "pull", name); code != 0 || !strings.Contains(got, "\r\x1b[K"+name+": ") {
		t.Errorf("on a terminal pull ends with %d and shows %q", code, got)
	}
	c.want(t, 0, "images", "rm", name)
	c.want(t, 6, "images", "rm", name)
	c.want(t, 6, "images", "pull", host+"/some/app:none")
	c.want(t, 1, "images", "pull", "127.0.0.1:1/some/app:v1")
	c.want(t, 2, "images", "pull", "Not/A:name:")
}
