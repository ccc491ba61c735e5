//go:build !race

package spec

const part = 1
