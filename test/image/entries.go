package image

import (
	"maps"
	"path"
	"slices"
)

type entry struct {
	path string
	File
}

// entries returns the files with every parent directory before them, in the
// order of their paths.
func entries(files map[string]File) []entry {
	all := maps.Clone(files)
	for p := range files {
		for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
			if _, ok := all[dir]; !ok {
				all[dir] = File{Mode: 0o755, Dir: true}
			}
		}
	}
	out := make([]entry, 0, len(all))
	for _, p := range slices.Sorted(maps.Keys(all)) {
		out = append(out, entry{p, all[p]})
	}
	return out
}
