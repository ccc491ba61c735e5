package main

import (
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// registries are those of the suite that somebody answers for here. The others do
// not exist, which some tests want.
var registries = []string{"registry.k8s.io"}

// serve answers as the registries, out of containerd, until the process ends.
func serve(l net.Listener, client *containerd.Client) {
	s := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, client)
	})}
	go func() { _ = s.Serve(l) }()
}

func answer(w http.ResponseWriter, r *http.Request, client *containerd.Client) {
	repository, what, manifest := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/")
	if !manifest {
		repository, what, _ = strings.Cut(repository, "/blobs/")
	}
	if repository == "" {
		return // whether a registry is here at all: it is
	}
	d := ocispec.Descriptor{Digest: digest.Digest(what)}
	if d.Digest.Validate() != nil {
		// A mirror is told whose place it takes.
		image, err := client.ImageService().Get(r.Context(), r.URL.Query().Get("ns")+"/"+repository+":"+what)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		d = image.Target
	}
	reader, err := client.ContentStore().ReaderAt(r.Context(), d)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer reader.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	if manifest {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
	}
	w.Header().Set("Docker-Content-Digest", d.Digest.String())
	http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(reader, 0, reader.Size()))
}
