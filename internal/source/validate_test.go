package source

import (
	"slices"
	"strings"
	"testing"

	"nodeagent/internal/pod/validate"
)

// With the defaults and rules that the daemon uses.
func TestDecodeAsTheDaemonDoes(t *testing.T) {
	m := testSource(t, "/m", func(c *Config) {
		c.NodeName, c.Default, c.Validate = "node1", validate.Default, validate.Validate
	})
	got, wrong := m.decode("/m/a.yaml", []byte(manifest("a")+"---\n"+manifest("b")))
	if wrong != nil || !slices.Equal(names(got), []string{"a-node1", "b-node1"}) {
		t.Fatalf("got %v, %v", names(got), wrong)
	}
	if s := got[0].pod.Spec; s.TerminationGracePeriodSeconds == nil || s.DNSPolicy == "" {
		t.Errorf("not defaulted: %+v", s)
	}
	for name, tc := range map[string]struct {
		text string
		line int
		want string
	}{
		"field":     {manifest("a", "    ports:\n    - containerPort: 70000\n"), 10, "spec.containers[0].ports[0].containerPort: Invalid value"},
		"name":      {strings.Replace(manifest("a"), "name: a", "name: A_b", 1), 4, "metadata.name: Invalid value"},
		"reference": {manifest("a", "    env:\n    - name: A\n      valueFrom:\n        secretKeyRef: {name: s, key: k}\n"), 12, "spec.containers[0].env[0].valueFrom.secretKeyRef: Forbidden"},
	} {
		_, wrong := m.decode("/m/a.yaml", []byte(tc.text))
		if len(wrong) == 0 || wrong[0].line != tc.line || !strings.HasPrefix(wrong[0].message, tc.want) {
			t.Errorf("%s: got %+v, want line %d, %s", name, wrong, tc.line, tc.want)
		}
	}
}
