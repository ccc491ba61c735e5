package image_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"nodeagent/test/image"
)

// TestWrite proves that a layout is the same each time and that every blob has
// the digest by which it is named.
func TestWrite(t *testing.T) {
	spec := image.ExampleSpec([]byte("a program"))
	other := spec
	other.Name, other.Arch, other.Volumes = "localhost/other:v1", "riscv64", []string{"/data"}
	var one, two bytes.Buffer
	for _, w := range []*bytes.Buffer{&one, &two} {
		if err := image.Write(w, spec, other); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("two builds of one image differ")
	}
	files := map[string][]byte{}
	for r := tar.NewReader(&one); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range files {
		hash, ok := strings.CutPrefix(name, "blobs/sha256/")
		if sum := sha256.Sum256(data); ok && hex.EncodeToString(sum[:]) != hash {
			t.Errorf("%s holds other bytes", name)
		}
	}
	var index struct {
		Manifests []struct {
			Digest      string
			Annotations map[string]string
		}
	}
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Manifests) != 2 || index.Manifests[0].Annotations["io.containerd.image.name"] != image.Example {
		t.Errorf("the index is %s", files["index.json"])
	}
}
