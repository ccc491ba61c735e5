package source

import (
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// oddVersions are no versions, or versions of nothing.
var oddVersions = []string{"abc", "-1", "0", "007", "1e9", " 5", strings.Repeat("9", 30), strings.Repeat("9", 10_000)}

// TestOddVersions: a server that once tells a version that is none is asked for
// everything, and not for ever for what comes after that.
func TestOddVersions(t *testing.T) {
	for _, version := range oddVersions {
		play(t, true, func(s *scene, _ *APIConfig) { s.add("a", "b") }, func(s *scene) {
			s.wants("before", "a b")
			s.set(func() { s.odd = func(p *corev1.Pod) { p.ResourceVersion = version } })
			s.add("c")
			s.after(0)
			s.set(func() { s.odd = nil })
			s.after(2 * time.Minute)
			s.wants(fmt.Sprintf("after %.20q", version), "a b c")
			s.add("d")
			s.wants("later", "a b c d")
			s.problem("later", "")
		})
	}
}

// TestOddPods: a pod without an identity or of another node is nobody's, whatever else
// is odd about one is kept, and others are not held up.
func TestOddPods(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	far := metav1.NewTime(time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC))
	for name, odd := range map[string]struct {
		change func(*corev1.Pod)
		ours   bool
	}{
		"no uid":           {func(p *corev1.Pod) { p.UID = "" }, false},
		"uid is a path":    {func(p *corev1.Pod) { p.UID = "../../etc" }, false},
		"uid is long":      {func(p *corev1.Pod) { p.UID = types.UID(long) }, false},
		"another node":     {func(p *corev1.Pod) { p.Spec.NodeName = "node2" }, false},
		"no node":          {func(p *corev1.Pod) { p.Spec.NodeName = "" }, false},
		"annotations":      {func(p *corev1.Pod) { p.Annotations = map[string]string{long: long, "": ""} }, true},
		"deleted long ago": {func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }, true},
		"deleted one day":  {func(p *corev1.Pod) { p.DeletionTimestamp = &far }, true},
		"endless grace": {func(p *corev1.Pod) {
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &far, new(int64(math.MaxInt64))
		}, true},
		"made one day":       {func(p *corev1.Pod) { p.CreationTimestamp = far }, true},
		"generation":         {func(p *corev1.Pod) { p.Generation = math.MinInt64 }, true},
		"owners of no kind":  {func(p *corev1.Pod) { p.OwnerReferences = make([]metav1.OwnerReference, 1000) }, true},
		"its own owner":      {func(p *corev1.Pod) { p.OwnerReferences = []metav1.OwnerReference{{UID: p.UID, Controller: new(true)}} }, true},
		"phase of no kind":   {func(p *corev1.Pod) { p.Status.Phase = "\x1b[31m" }, true},
		"no containers":      {func(p *corev1.Pod) { p.Spec.Containers = nil }, true},
		"conditions at once": {func(p *corev1.Pod) { p.Status.Conditions = make([]corev1.PodCondition, 1000) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, true, func(s *scene, _ *APIConfig) { s.add("a") }, func(s *scene) {
				s.set(func() {
					s.odd = func(p *corev1.Pod) { // of both that come
						if p.Name == "b" {
							odd.change(p)
						}
					}
				})
				s.add("b", "c")
				want := "a c"
				if odd.ours {
					want = "a b c"
				}
				s.wants("with an odd pod", want)
				s.problem("with an odd pod", "")
			})
		})
	}
}

// TestOthersPods: a server that does not choose, and sends the pods of the whole
// cluster, makes the node keep none of them.
func TestOthersPods(t *testing.T) {
	for _, plain := range []bool{false, true} {
		play(t, true, func(s *scene, _ *APIConfig) {
			s.noStream = plain
			s.add("a", "b")
			for i := range 10_000 {
				p := apiPod("other")
				p.UID, p.Spec.NodeName = types.UID(fmt.Sprintf("%08x-0000-4000-9000-%012x", i, i)), "node2"
				s.change(watch.Added, p)
			}
		}, func(s *scene) {
			s.after(time.Minute)
			s.wants("among 10 000 others", "a b")
			if n := len(s.api.pods); n != 2 {
				t.Errorf("%d pods are kept", n)
			}
		})
	}
}

// TestBookmarkThenSilence: a watch on which nothing but one bookmark ever comes is given
// up, though its connection lives, and nothing is missed.
func TestBookmarkThenSilence(t *testing.T) {
	play(t, true, func(s *scene, _ *APIConfig) { s.add("a") }, func(s *scene) {
		s.after(time.Minute + time.Second) // one bookmark
		s.mute.Store(true)
		s.add("b")
		s.after(0)
		s.mute.Store(false)
		s.wants("while it is silent", "a")
		s.after(2*silentPinged + 10*time.Second)
		s.wants("later", "a b")
	})
}

// FuzzAPIEvents: whatever a server sends, in whichever order, the source holds pods of
// this node only, asks for versions that are ones, and believes no empty list at once.
func FuzzAPIEvents(f *testing.F) {
	raw, err := apiPod("a").Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{0, 0, 4, 5, 1, 6, 2, 7}, raw)
	f.Add([]byte{4, 5, 0, 6, 5, 0, 4, 5, 3, 9, 2, 8}, raw)
	f.Add([]byte{0, 16, 0, 32, 0, 48, 4, 1, 3, 2, 3, 3}, []byte{})
	versions := append([]string{"", "5", "6", "7"}, oddVersions...)
	kinds := []watch.EventType{watch.Added, watch.Modified, watch.Deleted, watch.Bookmark, watch.Bookmark, watch.Error}
	f.Fuzz(func(t *testing.T, script, raw []byte) {
		a, err := NewAPI(APIConfig{NodeName: "node1", Rest: &rest.Config{Host: "http://server"}, HTTP: http.DefaultClient,
			Emit: func(Snapshot) {}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		a.timer = time.NewTimer(time.Hour)
		defer a.timer.Stop()
		all := map[types.UID]*corev1.Pod{}
		for len(script) >= 2 {
			op, how := script[0], int(script[1])
			script = script[2:]
			p := &corev1.Pod{}
			if p.Unmarshal(raw) != nil {
				p = apiPod("b")
			}
			if how&16 == 0 {
				p.UID = uidOf(fmt.Sprint(op))
			}
			if how&32 == 0 {
				p.Spec.NodeName = "node1"
			}
			p.ResourceVersion = versions[how%16%len(versions)]
			kind := kinds[int(op)%len(kinds)]
			if int(op)%len(kinds) == 4 {
				p.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
			}
			event := watch.Event{Type: kind, Object: p}
			if kind == watch.Error {
				event.Object = &apierrors.NewResourceExpired("gone").ErrStatus
			}
			before := len(a.pods)
			complete, err := a.take(event, all)
			switch {
			case err != nil:
				all = map[types.UID]*corev1.Pod{} // as Run, which begins anew where the version says so
				if a.version != "" {
					all = nil
				}
			case complete:
				all = nil
			}
			a.emit()
			if before >= doubtFrom && len(a.pods) == 0 {
				t.Fatalf("%d pods are gone at once", before)
			}
			if a.version != "" && !isVersion(a.version) {
				t.Fatalf("it goes on from the version %q", a.version)
			}
			for _, h := range slices.Collect(maps.Values(a.pods)) {
				if !a.isOurs(h.pod) {
					t.Fatalf("it holds a pod with the uid %q of the node %q", h.pod.UID, h.pod.Spec.NodeName)
				}
			}
		}
	})
}
