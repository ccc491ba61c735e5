package source

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"nodeagent/internal/pod"
)

// TestFollow walks a pod's life in each way in which a server may speak.
func TestFollow(t *testing.T) {
	for _, c := range []struct {
		name  string
		h2    bool
		setup func(*scene, *APIConfig)
		asked string
	}{
		{"protobuf, HTTP/2", true, nil, "first"},
		{"JSON, HTTP/1.1", false, func(s *scene, _ *APIConfig) { s.json = true }, "first"},
		{"without WatchList", true, func(s *scene, _ *APIConfig) { s.noStream = true }, "first list watch@101"},
	} {
		t.Run(c.name, func(t *testing.T) {
			play(t, c.h2, func(s *scene, cfg *APIConfig) {
				s.add("a")
				if c.setup != nil {
					c.setup(s, cfg)
				}
			}, func(s *scene) {
				s.wants("at first", "a")
				s.seen("at first", c.asked)
				if !s.last.Synced || !s.last.Trusted || s.last.Source != "api" || len(s.last.Problems) > 0 {
					t.Errorf("snapshot %+v", s.last)
				}
				if !strings.HasPrefix(s.accepts[0], protobuf) {
					t.Errorf("it accepts %q", s.accepts[0])
				}
				s.add("b")
				s.wants("one more", "a b")
				before := s.last.Pods[1]
				s.update("a", func(p *corev1.Pod) { p.Labels = map[string]string{"x": "y"} })
				s.wants("a label", "a b")
				if s.last.Pods[0].Labels["x"] != "y" || s.last.Pods[1] != before {
					t.Error("the change is not there, or more than it has changed")
				}
				s.remove("a")
				s.wants("deleted", "b")
				if s.api.Heard().IsZero() {
					t.Error("nothing was heard")
				}
				s.seen("all that while", "")
			})
		})
	}
}

// TestOldServer: one that ignores that its list is to be streamed is asked for a
// list, after it was given time.
func TestOldServer(t *testing.T) {
	play(t, true, func(s *scene, _ *APIConfig) { s.ignorant = true; s.add("a") }, func(s *scene) {
		s.wants("at first", "")
		s.after(silentFirst + 2*firstPause)
		s.wants("after a while", "a")
		s.seen("after a while", "first list watch@101")
	})
}

// TestEnding: a deleted pod stays listed, with the time that it has, until the server
// says that it is gone. Less time is told, too.
func TestEnding(t *testing.T) {
	play(t, true, func(s *scene, _ *APIConfig) { s.add("a", "b") }, func(s *scene) {
		end := func(grace int64) func(*corev1.Pod) {
			return func(p *corev1.Pod) {
				p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: time.Now()}, &grace
			}
		}
		for _, c := range []struct{ grace, want int64 }{{30, 30}, {5, 5}, {0, 1}} {
			s.update("a", end(c.grace))
			s.wants("leaving", "a b")
			if got, ok := s.last.Ending[uidOf("a")]; !ok || got != c.want || len(s.last.Ending) != 1 {
				t.Errorf("of %d seconds: %v", c.grace, s.last.Ending)
			}
		}
		s.remove("a")
		s.wants("gone", "b")
		if len(s.last.Ending) > 0 {
			t.Errorf("still ending: %v", s.last.Ending)
		}
	})
}

// TestMirrors: the picture of a static pod is shown, and never among the pods.
func TestMirrors(t *testing.T) {
	play(t, true, nil, func(s *scene) {
		p := apiPod("static-node1")
		p.Annotations = map[string]string{annotationMirror: "hash", annotationSource: "file"}
		s.change(watch.Added, p)
		s.wants("mirror", "")
		if len(s.last.Mirrors) != 1 || s.last.Mirrors[0].Name != "static-node1" || s.last.Mirrors[0].Annotations[annotationSource] != "file" {
			t.Errorf("mirrors %v", s.last.Mirrors)
		}
		s.change(watch.Deleted, p)
		s.wants("gone", "")
		if len(s.last.Mirrors) > 0 {
			t.Error("the mirror stays")
		}
	})
}

// TestEcho: what the node wrote itself comes back without waking anybody; what others
// write into the status does.
func TestEcho(t *testing.T) {
	var echoes []*corev1.Pod
	play(t, true, func(s *scene, cfg *APIConfig) {
		s.add("a")
		cfg.Echo = func(p *corev1.Pod) { echoes = append(echoes, p) }
	}, func(s *scene) {
		count, before := s.count, s.last.Pods[0]
		s.update("a", func(p *corev1.Pod) {
			p.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1", StartTime: &metav1.Time{Time: time.Now()},
				ContainerStatuses: []corev1.ContainerStatus{{Name: "main", Ready: true}}, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
		})
		s.wants("echo", "a")
		if s.count != count || s.last.Pods[0] != before {
			t.Error("an echo made a snapshot")
		}
		if len(echoes) != 1 || echoes[0].Status.Phase != corev1.PodRunning {
			t.Errorf("echoes %v", echoes)
		}
		s.update("a", func(p *corev1.Pod) {
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: "example.com/gate", Status: corev1.ConditionTrue})
		})
		s.wants("gate", "a")
		if s.count != count+1 || s.last.Pods[0].Status.Phase != corev1.PodRunning {
			t.Error("a condition of somebody else is not told")
		}
		s.update("a", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
		s.wants("over", "a")
		if s.count != count+2 || s.last.Pods[0].Status.Phase != corev1.PodSucceeded {
			t.Error("that it is over is not told")
		}
	})
}

// TestTrim: what nobody reads is dropped, what a container can see is kept, and
// nobody's word makes a pod one of the node's files.
func TestTrim(t *testing.T) {
	defaulted := 0
	play(t, true, func(s *scene, cfg *APIConfig) {
		cfg.Default = func(*corev1.Pod) { defaulted++ }
		for _, name := range []string{"plain", "shows"} {
			p := apiPod(name)
			p.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: "x", "keep": "y", annotationSource: "file"}
			p.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
			if name == "shows" {
				p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{
					DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "a", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations"}}}}}}}}}}
			}
			s.change(watch.Added, p)
		}
	}, func(s *scene) {
		s.wants("both", "plain shows")
		for _, p := range s.last.Pods {
			_, applied := p.Annotations[corev1.LastAppliedConfigAnnotation]
			if p.ManagedFields != nil || p.Annotations["keep"] != "y" || applied != (p.Name == "shows") {
				t.Errorf("%s: %v, %v", p.Name, p.Annotations, p.ManagedFields)
			}
			if pod.IsStatic(p) {
				t.Errorf("%s is of the API server, and counts as one of a file", p.Name)
			}
		}
		if defaulted != 2 {
			t.Errorf("%d were defaulted", defaulted)
		}
	})
}

// TestNotOurs: an identity that could not be a directory's name, or a pod of another
// node, is not taken, whoever sends it.
func TestNotOurs(t *testing.T) {
	play(t, true, nil, func(s *scene) {
		p := apiPod("a")
		p.UID = "../../etc"
		s.change(watch.Added, p)
		p = apiPod("b")
		p.Spec.NodeName = "node2"
		s.change(watch.Added, p)
		s.add("c")
		s.wants("one of three", "c")
	})
}

// TestSameName: a pod made anew under the name of one that was deleted is another.
func TestSameName(t *testing.T) {
	play(t, true, func(s *scene, _ *APIConfig) { s.add("a") }, func(s *scene) {
		p := apiPod("a")
		p.UID = uidOf("other")
		s.link.cut() // both happen while nobody looks
		s.remove("a")
		s.change(watch.Added, p)
		s.after(time.Second * 10) // a second try, where the first still meets the old connection
		s.wants("anew", "a")
		if s.last.Pods[0].UID != p.UID {
			t.Error("it is still the old one")
		}
	})
}

// TestCoalesced: while a snapshot is handed over, changes wait, and go together.
func TestCoalesced(t *testing.T) {
	var hold chan struct{}
	held := false
	play(t, true, func(s *scene, cfg *APIConfig) {
		s.add("a")
		hold = make(chan struct{})
		emit := cfg.Emit
		cfg.Emit = func(snap Snapshot) {
			if emit(snap); len(snap.Pods) == 2 && !held {
				held = true
				<-hold
			}
		}
	}, func(s *scene) {
		count := s.count
		s.add("b")
		s.after(0)
		var names []string
		for i := range 60 {
			names = append(names, fmt.Sprintf("n%02d", i))
		}
		s.add(names...)
		s.after(0)
		close(hold)
		s.wants("all", strings.Join(slices.Concat([]string{"a", "b"}, names), " "))
		if got := s.count - count; got > 3 {
			t.Errorf("%d snapshots of 61 changes", got)
		}
	})
}

// TestAfter: nobody is asked before he may be.
func TestAfter(t *testing.T) {
	var may chan struct{}
	play(t, true, func(s *scene, cfg *APIConfig) {
		s.add("a")
		may = make(chan struct{})
		cfg.After = may
	}, func(s *scene) {
		s.after(time.Minute)
		s.seen("before", "")
		if !s.last.Synced || s.last.Trusted {
			t.Errorf("others are held up, or something may end: %+v", s.last)
		}
		close(may)
		s.wants("then", "a")
	})
}
