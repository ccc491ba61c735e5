//go:build !race

package cluster_test

// raced builds the daemon as this test was built.
const raced = false
