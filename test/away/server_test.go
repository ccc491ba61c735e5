package away

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"

	"nodeagent/internal/cert/certtest"
	"nodeagent/internal/node/nodetest"
	"nodeagent/internal/object/objecttest"
	"nodeagent/internal/status/statustest"
)

// server is an API server in memory, made of those that the rooms are tested with.
type server struct {
	*certtest.API
	node    *nodetest.Server
	objects *objecttest.Server
	status  *statustest.Server
	codecs  serializer.CodecFactory

	refuse atomic.Bool  // connections
	freeze atomic.Bool  // what is sent never arrives, and new connections hang
	asked  atomic.Int64 // connections and requests

	mu   sync.Mutex
	open []net.Conn
}

func newServer() *server {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		panic(err)
	}
	s := &server{API: certtest.New(), node: nodetest.New(), objects: &objecttest.Server{}, status: statustest.New(), codecs: serializer.NewCodecFactory(scheme)}
	s.Life = 24 * time.Hour
	s.Other = s.mux(s.objects.Handler(nil))
	return s
}

func (s *server) close() {
	s.API.Close()
	s.node.Close()
}

// mux sends each request to who knows of it.
func (s *server) mux(objects http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		switch path := r.URL.Path; {
		case path == "/api/v1/pods":
			s.watchPods(w, r)
		case strings.Contains(path, "/nodes") || strings.Contains(path, "/leases"):
			s.node.ServeHTTP(w, r)
		case strings.Contains(path, "/pods/") || strings.Contains(path, "/events"):
			s.status.ServeHTTP(w, r)
		default:
			objects.ServeHTTP(w, r)
		}
	})
}

// watchPods streams the pods as they are, says that this was all, and nothing more.
func (s *server) watchPods(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("watch") == "" {
		http.Error(w, "nobody lists here", http.StatusInternalServerError)
		return
	}
	info, _ := runtime.SerializerInfoForMediaType(s.codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	w.Header().Set("Content-Type", info.MediaType+";stream=watch")
	w.WriteHeader(http.StatusOK)
	one := s.codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion)
	out := s.codecs.EncoderForVersion(info.StreamSerializer.Serializer, corev1.SchemeGroupVersion)
	to := info.StreamSerializer.NewFrameWriter(w)
	send := func(kind watch.EventType, p *corev1.Pod) {
		raw, err := runtime.Encode(one, p)
		if err == nil {
			_ = out.Encode(&metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: raw}}, to) // the client may be gone
		}
	}
	pods, _ := s.status.Pods()
	latest := 0
	for _, p := range pods {
		n, _ := strconv.Atoi(p.ResourceVersion)
		latest = max(latest, n)
		if q.Get("sendInitialEvents") == "true" {
			send(watch.Added, p)
		}
	}
	send(watch.Bookmark, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{ResourceVersion: fmt.Sprint(latest), Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"}}})
	w.(http.Flusher).Flush()
	seconds, _ := strconv.Atoi(q.Get("timeoutSeconds"))
	select {
	case <-r.Context().Done():
	case <-time.After(time.Duration(seconds) * time.Second):
	}
}

// dial is how the node gets there.
func (s *server) dial(ctx context.Context, network, address string) (net.Conn, error) {
	s.asked.Add(1)
	switch {
	case s.refuse.Load():
		return nil, fmt.Errorf("dial: connection refused")
	case s.freeze.Load():
		<-ctx.Done()
		return nil, ctx.Err()
	}
	c, err := s.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	w := &wire{Conn: c, s: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = append(s.open, w)
	return w, nil
}

// cut ends the connections of now.
func (s *server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.open {
		_ = c.Close()
	}
	s.open = nil
}

// wire is a connection that may carry nothing any more.
type wire struct {
	net.Conn
	s *server
}

func (w *wire) Write(b []byte) (int, error) {
	if w.s.freeze.Load() {
		return len(b), nil
	}
	return w.Conn.Write(b)
}

func (w *wire) Read(b []byte) (int, error) {
	for {
		n, err := w.Conn.Read(b)
		if err != nil || !w.s.freeze.Load() {
			return n, err
		}
	}
}
