package bed

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nodeagent/internal/test/need"
)

// TestConfined: a bed's daemon has the rights that the unit leaves it.
func TestConfined(t *testing.T) {
	root, err := ModuleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "systemd", "nodeagent.service"))
	if err != nil {
		t.Fatal(err)
	}
	var unit []string
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "CapabilityBoundingSet=~"); ok {
			for _, name := range strings.Fields(rest) {
				unit = append(unit, strings.ToLower(strings.TrimPrefix(name, "CAP_")))
			}
		}
	}
	if want := slices.Sorted(slices.Values(lacking)); !slices.Equal(slices.Sorted(slices.Values(unit)), want) {
		t.Errorf("the unit takes away %v, the bed %v", unit, want)
	}
	if !strings.Contains(string(text), "\nUMask=0077\n") {
		t.Error("the unit's umask is not the bed's")
	}
	need.Have(t, need.Root)
	argv := confined([]string{"cat", "/proc/self/status"})
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Umask:\t0077\n") {
		t.Errorf("%v\n%s", err, out)
	}
}
