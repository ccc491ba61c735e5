package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// TestWatchOrder: a slow watcher sees the last of several changes of a pod, every
// end, and all of it in the order in which it came.
func TestWatchOrder(t *testing.T) {
	b := newBoard()
	put := func(name string, phase corev1.PodPhase) {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
		b.put(p.UID, pod.Desired{Wish: pod.WishRun, Pod: p}, corev1.PodStatus{Phase: phase})
	}
	put("start", corev1.PodRunning)
	var seen []string
	enough := errors.New("enough")
	err := b.watch(context.Background(), func(p *corev1.Pod, gone bool) error {
		seen = append(seen, fmt.Sprintf("%s %s %t", p.Name, p.Status.Phase, gone))
		if p.Name == "start" && !gone && len(seen) == 1 { // while it is slow
			for i := range 20 {
				put(fmt.Sprintf("old%d", i), corev1.PodPending)
				put(fmt.Sprintf("old%d", i), corev1.PodRunning)
				b.remove(types.UID(fmt.Sprintf("old%d", i)), false)
				put(fmt.Sprintf("new%d", i), corev1.PodPending)
			}
			b.remove("start", false)
			put("start", corev1.PodPending)
		}
		if len(seen) == 43 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	want := []string{"start Running false"}
	for i := range 20 {
		want = append(want, fmt.Sprintf("old%d Running true", i), fmt.Sprintf("new%d Pending false", i))
	}
	want = append(want, "start Running true", "start Pending false")
	if !slices.Equal(seen, want) {
		t.Errorf("a watcher saw\n%q\nwant\n%q", seen, want)
	}
}

// TestWatchLate: who begins to watch after the end of a pod is told of it for as long
// as a source lists the pod, and not once it lives again.
func TestWatchLate(t *testing.T) {
	b := newBoard()
	put := func(name string) {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
		b.put(p.UID, pod.Desired{Wish: pod.WishRun, Pod: p}, corev1.PodStatus{})
	}
	for _, name := range []string{"listed", "unlisted", "again", "local"} {
		put(name)
		b.remove(types.UID(name), name != "local")
	}
	put("again")
	b.unlist(func(uid types.UID) bool { return uid != "unlisted" })
	seen, enough := map[string]bool{}, errors.New("enough")
	_ = b.watch(context.Background(), func(p *corev1.Pod, gone bool) error {
		if seen[p.Name] = gone; len(seen) == 2 {
			return enough
		}
		return nil
	})
	if want := map[string]bool{"listed": true, "again": false}; !maps.Equal(seen, want) {
		t.Errorf("who came late was told %v, want %v", seen, want)
	}
}
