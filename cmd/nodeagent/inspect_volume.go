package main

import (
	"fmt"

	"nodeagent/internal/volume"
)

// volumeText says what a volume takes, for people.
func volumeText(v volume.Usage) string {
	text := fmt.Sprintf("%s (%s): %s in %d files", v.Name, v.Kind, size(v.Bytes), v.Inodes)
	if v.Capacity > 0 {
		text += " of " + size(v.Capacity)
	}
	if v.Partial {
		text += " and more: only a part was counted"
	}
	return text
}
