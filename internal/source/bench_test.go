package source

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// testSource is a source with little defaulting and validation of its own: what
// those say is not this package's to judge.
func testSource(tb testing.TB, path string, change func(*Config)) *Manifests {
	tb.Helper()
	cfg := Config{
		Path: path, NodeName: "Node1", OS: "linux", Arch: "amd64",
		Default: func(p *corev1.Pod) {
			if p.Spec.RestartPolicy == "" {
				p.Spec.RestartPolicy = corev1.RestartPolicyAlways
			}
		},
		Validate: func(p *corev1.Pod) field.ErrorList {
			var errs field.ErrorList
			for i := range p.Spec.Containers {
				if p.Spec.Containers[i].Image == "" {
					errs = append(errs, field.Required(field.NewPath("spec", "containers").Index(i).Child("image"), ""))
				}
			}
			if len(p.Spec.Containers) == 0 {
				errs = append(errs, field.Required(field.NewPath("spec", "containers"), ""))
			}
			return errs
		},
		Emit: func(Snapshot) {},
	}
	if change != nil {
		change(&cfg)
	}
	m, err := NewManifests(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// manifest is a plain pod; words are further lines of its container.
func manifest(name string, words ...string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata:\n  name: %s\nspec:\n  containers:\n  - name: main\n    image: example/app:1\n%s", name, strings.Join(words, ""))
}

func BenchmarkDecode(b *testing.B) {
	m := testSource(b, "/manifests", nil)
	text := []byte(manifest("web", "    args: [a, b]\n    resources: {limits: {cpu: 100m, memory: 64Mi}}\n"))
	for b.Loop() {
		if _, wrong := m.decode("/manifests/web.yaml", text); wrong != nil {
			b.Fatal(wrong)
		}
	}
}

// BenchmarkScan is a daemon's start with many manifests.
func BenchmarkScan(b *testing.B) {
	dir := b.TempDir()
	for i := range 5000 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("p%d.yaml", i)), []byte(manifest(fmt.Sprintf("p%d", i))), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		testSource(b, dir, nil).scan(nil)
	}
}
