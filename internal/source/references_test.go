package source

import (
	"strings"
	"testing"
)

func TestDecodeRefusesAPIObjects(t *testing.T) {
	_, wrong := testSource(t, "/m", nil).decode("/m/a.yaml", []byte(manifest("a", "    envFrom:\n    - prefix: X_\n      secretRef: {name: s}\n")))
	if len(wrong) != 1 || wrong[0].line != 11 || !strings.HasPrefix(wrong[0].message, "spec.containers[0].envFrom[0].secretRef: Forbidden") || wrong[0].pod != "default/a-node1" {
		t.Fatalf("got %+v", wrong)
	}
}
