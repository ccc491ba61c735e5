package durable

import (
	"cmp"
	"slices"
	"strings"
)

// slicesSortByStamp sorts names of bad files oldest first.
func slicesSortByStamp(names []string) {
	stamp := func(s string) string {
		_, after, _ := strings.Cut(s, badInfix)
		return after
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(stamp(a), stamp(b)), cmp.Compare(a, b))
	})
}

func compactSorted(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}
