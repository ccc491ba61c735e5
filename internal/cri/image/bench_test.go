package image

import (
	"bytes"
	"context"
	"runtime"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"nodeagent/test/bed"
)

// BenchmarkStore measures what lies on the way of a container's creation.
func BenchmarkStore(b *testing.B) {
	node := bed.Containerd(b, bed.Options{Stock: true})
	s, err := New(Config{Client: node.Client(b), DockerConfigs: []string{}})
	if err != nil {
		b.Fatal(err)
	}
	var layers []map[string]string
	for _, text := range []string{"a", "b", "c", "d", "e"} {
		layers = append(layers, map[string]string{"etc/passwd": text})
	}
	image := build(runtime.GOARCH, ocispec.ImageConfig{}, layers...)
	if _, err := s.Import(b.Context(), bytes.NewReader(ociLayout(map[string]built{"localhost/bench:v1": image}))); err != nil {
		b.Fatal(err)
	}
	img, err := s.Get(b.Context(), "localhost/bench:v1")
	if err != nil {
		b.Fatal(err)
	}
	for name, f := range map[string]func(context.Context) error{
		"Get":         func(ctx context.Context) error { _, err := s.Get(ctx, img.Name); return err },
		"Get, unseen": func(ctx context.Context) error { s.cache.drop(img.Target); _, err := s.Get(ctx, img.Name); return err },
		"Rootfs":      func(ctx context.Context) error { return s.Rootfs(ctx, img, func(string) error { return nil }) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := f(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
