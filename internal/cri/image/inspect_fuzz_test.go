package image

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// anyBlobs is a content store that has something under every digest: one of the
// blobs, by the digest's last byte. So indexes may hold each other.
type anyBlobs struct {
	blobs [][]byte
	reads int
}

func (a *anyBlobs) ReaderAt(_ context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	a.reads++
	i := 0
	if d := string(desc.Digest); d != "" {
		i = int(d[len(d)-1]) % len(a.blobs)
	}
	return anyBlob{bytes.NewReader(a.blobs[i])}, nil
}

type anyBlob struct{ *bytes.Reader }

func (b anyBlob) Close() error { return nil }

// FuzzInspect: whatever indexes, manifests and configs a registry sends, reading
// them ends, reads no more blobs than the limits allow, and an image that is
// taken has no more layers than they do.
func FuzzInspect(f *testing.F) {
	index, manifest, config := mediaOf(ocispec.MediaTypeImageIndex), mediaOf(ocispec.MediaTypeImageManifest), mediaOf(ocispec.MediaTypeImageConfig)
	f.Add([]byte(`{"manifests":[`+manifest("1")+`]}`), []byte(`{"config":`+config("2")+`,"layers":[{"size":5}]}`), []byte(`{"rootfs":{"diff_ids":["sha256:0"]}}`))
	f.Add([]byte(`{"manifests":[`+index("0")+`,`+index("0")+`,`+index("0")+`]}`), []byte(`{}`), []byte(`{}`))
	f.Add([]byte(`{"manifests":[{"mediaType":"x"},`+manifest("1")+`]}`), []byte(`{"config":`+config("1")+`}`), []byte(`null`))
	f.Fuzz(func(t *testing.T, first, second, third []byte) {
		store := &anyBlobs{blobs: [][]byte{first, second, third}}
		in := inspector{cs: store, match: platforms.Default()}
		target := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.Digest("sha256:0")}
		img, err := in.image(t.Context(), target)
		if store.reads > 2*maxDescriptors+2 || in.descriptors > maxDescriptors+len(first)+len(second)+len(third) {
			t.Fatalf("%d blobs read, %d descriptors", store.reads, in.descriptors)
		}
		if err != nil {
			_ = err.Error()
			return
		}
		if len(img.DiffIDs) > maxDescriptors || (len(img.DiffIDs) > 0) != (img.ChainID != "") {
			t.Fatalf("%d layers, chain %q", len(img.DiffIDs), img.ChainID)
		}
	})
}

func mediaOf(media string) func(last string) string {
	return func(last string) string {
		b, _ := json.Marshal(ocispec.Descriptor{MediaType: media, Digest: digest.Digest("sha256:" + last), Size: 1})
		return string(b)
	}
}
