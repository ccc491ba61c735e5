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

// TestConfined: a bed's daemon has the rights that the units leave it.
func TestConfined(t *testing.T) {
	root, err := ModuleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"nodeagent.service", "nodeagent-proxy.service"} {
		text, err := os.ReadFile(filepath.Join(root, "systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		confines(t, name, string(text))
	}
	need.Have(t, need.Root)
	argv := confined([]string{"cat", "/proc/self/status"})
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Umask:\t0077\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

// confines holds a unit's rights against those of a bed's daemon.
func confines(t *testing.T, name, text string) {
	t.Helper()
	var unit []string
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "CapabilityBoundingSet=~"); ok {
			for _, name := range strings.Fields(rest) {
				unit = append(unit, strings.ToLower(strings.TrimPrefix(name, "CAP_")))
			}
		}
	}
	if want := slices.Sorted(slices.Values(lacking)); !slices.Equal(slices.Sorted(slices.Values(unit)), want) {
		t.Errorf("%s takes away %v, the bed %v", name, unit, want)
	}
	if !strings.Contains(text, "\nUMask=0077\n") {
		t.Errorf("the umask of %s is not the bed's", name)
	}
}
