package worker

import (
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"nodeagent/internal/pod"
)

// absent tells that something failed for want of an object, or of a key in one:
// trying again helps only when the object has changed.
func absent(err error) bool {
	var lacks interface{ Absent() bool }
	return apierrors.IsNotFound(err) || errors.As(err, &lacks) && lacks.Absent()
}

// ImagesChanged tells that images came without being asked for: what failed for
// want of one is tried at once. It never blocks.
func (s *Set) ImagesChanged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.workers {
		w.mu.Lock()
		w.images = true
		w.mu.Unlock()
		w.wake()
	}
}

// objectChanged notes a change of an object, if the pod refers to it.
func (w *worker) objectChanged(ref pod.ObjectRef) {
	w.mu.Lock()
	refers := w.desired.Pod != nil && slices.Contains(pod.References(w.desired.Pod), ref)
	if refers {
		w.objects++
	}
	w.mu.Unlock()
	if refers {
		w.wake()
	}
}

// pullSecrets are the secrets that the pod's images are pulled with. One that is
// not there is left out, as kubelet does: the registry has the last word, and the
// secret wakes the pod when it comes.
func (s *Set) pullSecrets(w *worker, p *corev1.Pod) []*corev1.Secret {
	var all []*corev1.Secret
	for _, ref := range p.Spec.ImagePullSecrets {
		if ref.Name == "" {
			continue
		}
		secret, err := s.cfg.Objects.Secret(p.Namespace, ref.Name)
		if err != nil {
			w.log.Warn("pull without a secret", "secret", ref.Name, "err", err)
			continue
		}
		all = append(all, secret)
	}
	return all
}

// answerObjects forgets what failed for want of an object since one changed, or
// of an image, which a secret may help to pull. A
// step that is in flight meanwhile has perhaps not seen the change: see finish.
func (w *worker) answerObjects() {
	w.mu.Lock()
	objects, images := w.objects, w.images
	w.images = images && w.starting() // one under way has perhaps not seen them
	w.mu.Unlock()
	changed := objects != w.answered
	w.answered = objects
	for op, f := range w.failed {
		if changed && f.Absent || (changed || images) && f.LacksImage() {
			delete(w.failed, op)
		}
	}
}

// starting tells whether a container's start is under way.
func (w *worker) starting() bool {
	for op := range w.running {
		if op.Kind == pod.StartContainer {
			return true
		}
	}
	return false
}
