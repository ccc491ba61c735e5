package main

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/source"
	"nodeagent/internal/status"
)

// TestStatics: mirror pods are those of all sources of static pods, and none goes
// before each source is trusted.
func TestStatics(t *testing.T) {
	var j statics
	var told status.Static
	of := func(name string, trusted bool, pods int) {
		j.put(source.Snapshot{Source: name, Trusted: trusted, Pods: make([]*corev1.Pod, pods)}, []string{sourceFile, sourceURL, sourceAPI}, func(s status.Static) { told = s })
	}
	for _, c := range []struct {
		source  string
		trusted bool
		pods    int
		all     int
		sure    bool
	}{{sourceFile, true, 2, 2, false}, {sourceURL, false, 0, 2, false}, {sourceURL, true, 3, 5, true}, {sourceFile, true, 1, 4, true}} {
		of(c.source, c.trusted, c.pods)
		if len(told.Pods) != c.all || told.Trusted != c.sure {
			t.Errorf("after %+v: %d pods, trusted %t", c, len(told.Pods), told.Trusted)
		}
	}
}
