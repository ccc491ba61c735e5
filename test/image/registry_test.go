package image_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"nodeagent/test/image"
)

// TestRegistry: who follows a tag finds the manifest, and everything that it names,
// under digests that are theirs; what lies below an image's files is a layer of its
// own.
func TestRegistry(t *testing.T) {
	files, err := image.Registry("testing", image.Spec{Name: "example/pause:v1", Base: []byte("below"), Files: map[string]image.File{"/pause": {Mode: 0o755, Data: []byte("x")}}})
	if err != nil {
		t.Fatal(err)
	}
	read := func(kind, digest string) []byte {
		t.Helper()
		hash := strings.TrimPrefix(digest, "sha256:")
		f, ok := files["pause/"+kind+"/sha256/"+hash[:2]+"/"+hash+"/data"]
		if !ok {
			t.Fatalf("there is no %s of %s", kind, digest)
		}
		if sum := sha256.Sum256(f.Data); "sha256:"+hex.EncodeToString(sum[:]) != digest {
			t.Errorf("%s of %s is something else", kind, digest)
		}
		return f.Data
	}
	var manifest struct {
		MediaType string
		Config    struct{ Digest string }
		Layers    []struct{ Digest string }
	}
	tag := strings.TrimSpace(string(files["pause/manifests/testing"].Data))
	if err := json.Unmarshal(read("manifests", tag), &manifest); err != nil {
		t.Fatal(err)
	}
	if manifest.MediaType != "application/vnd.oci.image.manifest.v1+json" {
		t.Errorf("the manifest is a %s", manifest.MediaType)
	}
	read("blobs", manifest.Config.Digest)
	if len(manifest.Layers) != 2 || string(read("blobs", manifest.Layers[0].Digest)) != "below" {
		t.Fatalf("the layers are %+v", manifest.Layers)
	}
	read("blobs", manifest.Layers[1].Digest)
}
