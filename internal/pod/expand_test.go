package pod

import "testing"

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
