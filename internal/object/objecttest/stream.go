package objecttest

import (
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"nodeagent/internal/pod"
)

// stream is one watch. Its channel is written to with the server's mu held.
type stream struct {
	s      *Server
	ref    pod.ObjectRef
	events chan watch.Event
	unhook func() bool
	marks  *time.Timer
	mute   bool
}

// shows tells whether an object is what the watch is of.
func (w *stream) shows(ref pod.ObjectRef) bool {
	return w.ref == ref || w.ref.Kind == serviceKind && ref.Kind == serviceKind
}

// send drops nothing: a test that does not read is broken.
func (w *stream) send(e watch.Event) {
	if w.mute {
		return
	}
	select {
	case w.events <- watch.Event{Type: e.Type, Object: e.Object.DeepCopyObject()}:
	default:
		panic("objecttest: nobody reads a watch")
	}
}

// mark sends a bookmark, as a server does each minute.
func (w *stream) mark() {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.s.streams[w] {
		w.send(w.s.bookmark(w.ref, false))
		w.marks.Reset(time.Minute)
	}
}

func (w *stream) ResultChan() <-chan watch.Event { return w.events }

func (w *stream) Stop() {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.s.streams[w] {
		delete(w.s.streams, w)
		close(w.events)
		w.unhook()
		w.marks.Stop()
	}
}

// Replay sends an object as it once was to all watches of it, as a cache that
// lags does.
func (s *Server) Replay(o runtime.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.streams {
		if w.ref == Ref(o) {
			w.send(watch.Event{Type: watch.Modified, Object: o})
		}
	}
}
