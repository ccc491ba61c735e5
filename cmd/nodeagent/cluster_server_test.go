package main

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/source"
	"nodeagent/internal/status"
)

// TestServerPods: who compares sees the newest that the API server has of each pod,
// whether it came with a snapshot or as an echo of our own words.
func TestServerPods(t *testing.T) {
	var s serverPods
	var told status.Snapshot
	tell := func(now status.Snapshot) { told = now }
	of := func(uid, version string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid), ResourceVersion: version}}
	}
	want := func(what string, versions ...string) {
		t.Helper()
		for i, v := range versions {
			if len(told.Pods) != len(versions) || told.Pods[i].ResourceVersion != v {
				t.Fatalf("%s: %v, want versions %v", what, told.Pods, versions)
			}
		}
	}
	a, b := of("a", "1"), of("b", "2")
	s.put(source.Snapshot{Pods: []*corev1.Pod{a}}, tell)
	if told.Synced {
		t.Error("the cache is taken for the server")
	}
	s.echo(of("a", "5"), tell)
	want("an echo", "5")
	s.put(source.Snapshot{Pods: []*corev1.Pod{a, b}, Listed: true}, tell)
	want("a snapshot with the old pointer", "5", "2")
	s.put(source.Snapshot{Pods: []*corev1.Pod{of("a", "6"), b}, Listed: true}, tell)
	want("a change by somebody else", "6", "2")
	s.echo(of("c", "7"), tell)
	s.put(source.Snapshot{Pods: []*corev1.Pod{of("c", "3")}, Listed: true}, tell)
	want("an echo before its pod is listed", "7")
	s.echo(of("d", "7"), tell)
	s.put(source.Snapshot{Pods: []*corev1.Pod{of("d", "8")}, Listed: true}, tell)
	want("an echo that was overtaken", "8")
	s.put(source.Snapshot{Listed: true}, tell)
	if len(told.Pods) != 0 || len(s.echoes) != 0 || !told.Synced {
		t.Errorf("of nothing it keeps %v", s.echoes)
	}
}
