package pod

import (
	"strings"
	"testing"
)

func TestExpand(t *testing.T) {
	known := map[string]string{"A": "1", "B": "$(A)"}
	for text, want := range map[string]string{
		"":            "",
		"$(A)":        "1",
		"x$(A)y$(A)":  "x1y1",
		"$(B)":        "$(A)", // once
		"$$(A)":       "$(A)",
		"$$$(A)":      "$1",
		"$(C)":        "$(C)",
		"$(A":         "$(A",
		"$":           "$",
		"$A":          "$A",
		"$(A)$":       "1$",
		"`$(A)`${A}'": "`1`${A}'",
	} {
		if got := Expand(text, known); got != want {
			t.Errorf("Expand(%q) = %q, want %q", text, got, want)
		}
	}
}

// FuzzExpand: expansion ends, without a reference it changes nothing but $$, and
// what no variable stands behind stays as it was written.
func FuzzExpand(f *testing.F) {
	for _, s := range []string{"", "$", "$$", "$(A)", "$(", "$()", "$$(A)", "$($(A))", "a$(B)c$", "$(A", "$)(", "$$$(A)"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		none := Expand(s, nil)
		if !strings.Contains(s, "$$") && none != s {
			t.Errorf("%q without a variable became %q", s, none)
		}
		if got := Expand(s, map[string]string{"A": "$(A)"}); len(got) > len(s)*4+4 {
			t.Errorf("%q grew to %q: a value was expanded again", s, got)
		}
		quoted := strings.ReplaceAll(s, "$", "$$")
		if got := Expand(quoted, map[string]string{"A": "x"}); got != s {
			t.Errorf("%q with each $ doubled became %q", s, got)
		}
	})
}
