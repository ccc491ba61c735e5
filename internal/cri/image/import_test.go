package image

import (
	"bytes"
	"compress/gzip"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func testImport(n *node) {
	gz := func(b []byte) []byte {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		_, _ = w.Write(b)
		_ = w.Close()
		return z.Bytes()
	}
	zst := func(b []byte) []byte {
		w, _ := zstd.NewWriter(nil)
		defer w.Close()
		return w.EncodeAll(b, nil)
	}
	bare := simple("bare")
	cases := []struct {
		name string
		tar  []byte
		want []string
	}{
		{"docker save", dockerSave("busy/box:v1", simple("docker")), []string{"docker.io/busy/box:v1"}},
		{"docker save, gzip", gz(dockerSave("plain", simple("docker2"))), []string{"docker.io/library/plain:latest"}},
		{"docker save, zstd", zst(dockerSave("plainer", simple("docker3"))), []string{"docker.io/library/plainer:latest"}},
		{"OCI layout", ociLayout(map[string]built{"localhost/team/app:v1": simple("oci")}), []string{"localhost/team/app:v1"}},
		{"OCI layout, tag only", ociLayout(map[string]built{"v7": simple("oci7")}), []string{"localhost/import:v7"}},
		{"OCI layout, no name", ociLayout(map[string]built{"": bare}), []string{"localhost/import@" + digest.FromBytes(mustJSON(bare.manifest)).String()}},
		{"two, one of them for another machine", ociLayout(map[string]built{
			"localhost/a:v1": simple("a"), "localhost/b:v1": build(other(), ocispec.ImageConfig{}, map[string]string{"b": "b"}),
		}), []string{"localhost/a:v1"}},
	}
	for _, c := range cases {
		names, err := n.store.Import(n.ctx(), bytes.NewReader(c.tar))
		if err != nil || !slices.Equal(names, c.want) {
			n.Errorf("%s: %v, %v; want %v", c.name, names, err, c.want)
			continue
		}
		if img, err := n.store.Get(n.ctx(), names[0]); err != nil || !img.Unpacked || strings.Contains(names[0], ":") && !strings.Contains(names[0], "@") && len(img.RepoDigests) > 0 {
			n.Errorf("%s: %+v, %v", c.name, img, err)
		}
	}
	n.absent("localhost/b:v1")
	_, err := n.store.Import(n.ctx(), bytes.NewReader(ociLayout(map[string]built{"localhost/theirs:v1": build(other(), ocispec.ImageConfig{}, map[string]string{"x": "y"})})))
	if !IsNoPlatform(err) {
		n.Errorf("only for another machine: %v", err)
	}
	n.absent("localhost/theirs:v1")
	// A good image is not lost to a useless one of its name.
	_, err = n.store.Import(n.ctx(), bytes.NewReader(ociLayout(map[string]built{"localhost/a:v1": build(other(), ocispec.ImageConfig{}, map[string]string{"x": "z"})})))
	if img, gerr := n.store.Get(n.ctx(), "localhost/a:v1"); !IsNoPlatform(err) || gerr != nil || img.Config.Env[0] != "WHO=a" {
		n.Errorf("%v; %+v, %v", err, img, gerr)
	}
	whole := dockerSave("cut", simple("cut"))
	for name, bad := range map[string][]byte{"nothing": nil, "junk": []byte("junk"), "no image": tarOf(map[string]string{"a": "b"}), "cut short": whole[:len(whole)/2]} {
		if names, err := n.store.Import(n.ctx(), bytes.NewReader(bad)); err == nil || IsRetryable(err) {
			n.Errorf("%s: %v, %v", name, names, err)
		}
	}
	small := n.with(n.T, func(c *Config) { c.MaxSize = 1000 })
	if _, err := small.store.Import(n.ctx(), bytes.NewReader(whole)); err == nil || !strings.Contains(err.Error(), "larger") {
		n.Errorf("over the limit: %v", err)
	}
}
