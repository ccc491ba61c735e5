package nodetest

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"
)

const protobuf = "application/vnd.kubernetes.protobuf"

// event is one of a watch.
type event struct {
	kind   watch.EventType
	object runtime.Object
}

// mediaType is what the client wants answers in.
func mediaType(r *http.Request) string {
	if strings.Contains(r.Header.Get("Accept"), protobuf) {
		return protobuf
	}
	return runtime.ContentTypeJSON
}

func reply(w http.ResponseWriter, r *http.Request, code int, o runtime.Object) {
	c := codecs()
	info, _ := runtime.SerializerInfoForMediaType(c.SupportedMediaTypes(), mediaType(r))
	gv := corev1.SchemeGroupVersion
	if _, is := o.(*coordinationv1.Lease); is {
		gv = coordinationv1.SchemeGroupVersion
	}
	w.Header().Set("Content-Type", info.MediaType)
	w.WriteHeader(code)
	_ = c.EncoderForVersion(info.Serializer, gv).Encode(o, w) // the client may be gone
}

func fail(w http.ResponseWriter, r *http.Request, err error) {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		status = apierrors.NewInternalError(err)
	}
	st := status.Status()
	if st.Details != nil && st.Details.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", "1") // the status says it better
	}
	reply(w, r, int(st.Code), &st)
}

func decode[T runtime.Object](body []byte, into T) error {
	_, _, err := codecs().UniversalDeserializer().Decode(body, nil, into)
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return nil
}

// watch sends what happens to the Node from now on; a version in the past is
// answered with all that is known since: the Node as it is.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	if err := s.allowed(r); err != nil {
		fail(w, r, err)
		return
	}
	events := make(chan event, 100)
	s.mu.Lock()
	if s.node != nil && number(r.URL.Query().Get("resourceVersion")) < number(s.node.ResourceVersion) {
		events <- event{watch.Modified, s.node.DeepCopy()}
	}
	s.watchers[events] = true
	s.mu.Unlock()
	c := codecs()
	info, _ := runtime.SerializerInfoForMediaType(c.SupportedMediaTypes(), mediaType(r))
	w.Header().Set("Content-Type", info.MediaType+";stream=watch")
	w.WriteHeader(http.StatusOK)
	flush := w.(http.Flusher).Flush
	flush()
	gv := corev1.SchemeGroupVersion
	frames := info.StreamSerializer.NewFrameWriter(w)
	out := streaming.NewEncoder(frames, c.EncoderForVersion(info.StreamSerializer.Serializer, gv))
	marks := time.NewTicker(time.Minute)
	defer marks.Stop()
	for {
		select {
		case <-marks.C:
			s.mark(events)
		case <-r.Context().Done():
			s.mu.Lock()
			delete(s.watchers, events)
			s.mu.Unlock()
			return
		case e, more := <-events:
			if !more {
				return
			}
			raw, err := runtime.Encode(c.EncoderForVersion(info.Serializer, gv), e.object)
			if err != nil {
				panic(err)
			}
			if out.Encode(&metav1.WatchEvent{Type: string(e.kind), Object: runtime.RawExtension{Raw: raw}}) != nil {
				return
			}
			flush()
		}
	}
}

func number(version string) int {
	n, _ := strconv.Atoi(version)
	return n
}

// EndWatches ends all watches, as a server does after a while.
func (s *Server) EndWatches() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.watchers {
		close(w)
		delete(s.watchers, w)
	}
}

// Expire ends all watches with 410, as after a compaction.
func (s *Server) Expire() {
	s.tell(watch.Error, &apierrors.NewResourceExpired("too old").ErrStatus)
	s.EndWatches()
}

// Mute has the watches that there are say nothing any more, bookmarks neither, as a
// proxy does that lives before a server that is dead.
func (s *Server) Mute() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.watchers {
		s.watchers[w] = false
	}
}

// mark sends a watch a bookmark.
func (s *Server) mark(to chan event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watchers[to] {
		n := &corev1.Node{}
		n.ResourceVersion = strconv.FormatInt(s.version, 10)
		to <- event{watch.Bookmark, n}
	}
}

func (s *Server) tell(kind watch.EventType, o runtime.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tellLocked(kind, o)
}

func (s *Server) tellLocked(kind watch.EventType, o runtime.Object) {
	for w, heard := range s.watchers {
		if heard {
			w <- event{kind, o.DeepCopyObject()}
		}
	}
}
