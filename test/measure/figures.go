package measure

import (
	"fmt"
	"slices"
	"strings"
)

// MS says a time that is given in seconds.
func MS(seconds float64) string {
	if seconds >= 1 {
		return fmt.Sprintf("%.2f s", seconds)
	}
	return fmt.Sprintf("%.1f ms", seconds*1000)
}

// MB says a size that is given in bytes.
func MB(bytes float64) string { return fmt.Sprintf("%.2f MB", bytes/1e6) }

// List says several of a kind.
func List(v []float64, show func(float64) string) string {
	var texts []string
	for _, x := range v {
		texts = append(texts, show(x))
	}
	return strings.Join(texts, " ")
}

// Mean is the mean of at least one.
func Mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

// Median is the median of at least one.
func Median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
