package bed

import (
	"slices"
	"testing"
)

// TestPinsIn: a pin is found whatever follows it.
func TestPinsIn(t *testing.T) {
	const one, two = "/run/netns/cni-b8cd2aef-3287-2155-a1a6-a5f8dbe0bb09", "/var/run/netns/cni-0420e60d-8330-a046-b391-ccb67bef203f"
	for _, text := range []string{
		"io.nodeagent.netns" + one + "io.nodeagent.sandbox" + two + "abc",
		"\x00" + two + "\x00\"" + one + "\"" + one + "0" + two + "-",
		one + one + two + "/",
	} {
		if got := pinsIn([]byte(text)); !slices.Equal(got, []string{one, two}) {
			t.Errorf("in %q are %q", text, got)
		}
	}
	if got := pinsIn([]byte("/run/netns/cni-b8cd2aef /run/netns/mine-and-long-enough")); len(got) > 0 {
		t.Errorf("others' are %q", got)
	}
}
