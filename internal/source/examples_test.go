package source

import (
	"os"
	"path/filepath"
	"testing"

	"nodeagent/internal/pod/validate"
)

// The manifests that this repository shows to its users are good.
func TestExamples(t *testing.T) {
	dir := filepath.Join("..", "..", "examples", "manifests")
	m := testSource(t, "/m", func(c *Config) {
		c.NodeName, c.Default, c.Validate = "node1", validate.Default, validate.Validate
	})
	entries, err := os.ReadDir(dir)
	do(t, err)
	for _, e := range entries {
		if kindOf(e.Name()) != kindManifest {
			t.Errorf("%s is no manifest by its name", e.Name())
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		do(t, err)
		if _, wrong := m.decode("/m/"+e.Name(), data); wrong != nil {
			t.Errorf("%s: %+v", e.Name(), wrong)
		}
	}
}
