//go:build race

package source

// The race detector makes everything slower by about so much.
const slowdown = 10
