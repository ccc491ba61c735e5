package worker

import (
	"context"
	"errors"
	"fmt"
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
				b.remove(types.UID(fmt.Sprintf("old%d", i)))
				put(fmt.Sprintf("new%d", i), corev1.PodPending)
			}
			b.remove("start")
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
