//go:build !race

package worker

const part = 1
