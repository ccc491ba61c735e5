package source

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// fakeServer speaks the list and watch protocol of kube-apiserver for pods, in JSON
// and in protobuf, over HTTP/1.1 or HTTP/2, in memory, so that its time can be a
// test's. Faults are put in front of it.
type fakeServer struct {
	node     string
	json     bool        // it knows no protobuf
	noStream bool        // it has no WatchList
	ignorant bool        // it is so old that it does not even refuse it
	mute     atomic.Bool // watches say nothing, though they are open

	mu        sync.Mutex
	pods      map[types.UID]*corev1.Pod
	version   int
	history   []fakeEvent
	compacted int
	wake      chan struct{}     // closed at each change
	hidden    bool              // lists are empty
	odd       func(*corev1.Pod) // changes what watches tell of a pod; nil: nothing
	requests  []*url.URL
	accepts   []string
	fault     http.HandlerFunc // instead of an answer; nil: none
	codecs    serializer.CodecFactory
}

type fakeEvent struct {
	version int
	kind    watch.EventType
	pod     *corev1.Pod
}

func newFakeServer() *fakeServer {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		panic(err)
	}
	return &fakeServer{node: "node1", pods: map[types.UID]*corev1.Pod{}, version: 100, wake: make(chan struct{}), codecs: serializer.NewCodecFactory(scheme)}
}

// change makes one write; the pod gets the next version.
func (f *fakeServer) change(kind watch.EventType, p *corev1.Pod) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	p = p.DeepCopy()
	p.ResourceVersion = strconv.Itoa(f.version)
	if p.Spec.NodeName == "" {
		p.Spec.NodeName = f.node
	}
	if kind == watch.Deleted {
		delete(f.pods, p.UID)
	} else {
		f.pods[p.UID] = p
	}
	f.history = append(f.history, fakeEvent{f.version, kind, p})
	close(f.wake)
	f.wake = make(chan struct{})
}

func (f *fakeServer) add(names ...string) {
	for _, name := range names {
		f.change(watch.Added, apiPod(name))
	}
}

func (f *fakeServer) remove(names ...string) {
	for _, name := range names {
		f.change(watch.Deleted, apiPod(name))
	}
}

// update changes a pod that there is.
func (f *fakeServer) update(name string, change func(*corev1.Pod)) {
	f.mu.Lock()
	p := f.pods[uidOf(name)].DeepCopy()
	f.mu.Unlock()
	change(p)
	f.change(watch.Modified, p)
}

// compact forgets the history, so that who asks for it gets 410.
func (f *fakeServer) compact() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.compacted, f.history = f.version, nil
}

// restoreBackup sets the server back to a version, with these pods as they were.
func (f *fakeServer) restoreBackup(version int, names ...string) {
	f.mu.Lock()
	f.history, f.pods, f.version, f.compacted = nil, map[types.UID]*corev1.Pod{}, version-len(names), 0
	f.mu.Unlock()
	f.add(names...)
}

func (f *fakeServer) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// asked are the requests since it was last called: list, first (a watch that begins
// with everything) and watch@version.
func (f *fakeServer) asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, u := range f.requests {
		q := u.Query()
		switch {
		case q.Get("watch") == "":
			all = append(all, "list")
		case q.Get("sendInitialEvents") == "true":
			all = append(all, "first")
		default:
			all = append(all, "watch@"+q.Get("resourceVersion"))
		}
	}
	f.requests = nil
	return all
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests = append(f.requests, r.URL)
	f.accepts = append(f.accepts, r.Header.Get("Accept"))
	fault := f.fault
	f.mu.Unlock()
	q := r.URL.Query()
	_, err := strconv.Atoi(cmp.Or(q.Get("resourceVersion"), "0"))
	switch {
	case fault != nil:
		fault(w, r)
	case err != nil:
		f.answerError(w, apierrors.NewBadRequest("Invalid value: resourceVersion"))
	case r.URL.Path != "/api/v1/pods" || q.Get("fieldSelector") != "spec.nodeName="+f.node:
		http.Error(w, "not authorized", http.StatusForbidden)
	case q.Get("watch") == "":
		f.serveList(w)
	case q.Get("sendInitialEvents") == "true" && f.noStream:
		f.answerError(w, apierrors.NewInvalid(schema.GroupKind{Kind: "ListOptions"}, "", nil))
	default:
		f.serveWatch(w, r)
	}
}

func (f *fakeServer) media() runtime.SerializerInfo {
	want := protobuf
	if f.json {
		want = "application/json"
	}
	info, _ := runtime.SerializerInfoForMediaType(f.codecs.SupportedMediaTypes(), want)
	return info
}

func (f *fakeServer) encode(o runtime.Object) []byte {
	// A copy: the encoder writes into it, and two watches may tell of one pod.
	b, err := runtime.Encode(f.codecs.EncoderForVersion(f.media().Serializer, corev1.SchemeGroupVersion), o.DeepCopyObject())
	if err != nil {
		panic(err)
	}
	return b
}

func (f *fakeServer) answerError(w http.ResponseWriter, err *apierrors.StatusError) {
	status := err.Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	body, _ := json.Marshal(status)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(err.Status().Code))
	_, _ = w.Write(body)
}

func (f *fakeServer) serveList(w http.ResponseWriter) {
	f.mu.Lock()
	list := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(f.version)}}
	for _, uid := range slices.Sorted(maps.Keys(f.pods)) {
		if !f.hidden {
			list.Items = append(list.Items, *f.pods[uid])
		}
	}
	f.mu.Unlock()
	w.Header().Set("Content-Type", f.media().MediaType)
	_, _ = w.Write(f.encode(list))
}

// fakeStream writes the events of one watch.
type fakeStream struct {
	f   *fakeServer
	w   http.ResponseWriter
	out runtime.Encoder
	to  interface{ Write([]byte) (int, error) }
}

func (s *fakeStream) send(kind watch.EventType, o runtime.Object) {
	event := &metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: s.f.encode(o)}}
	if err := s.out.Encode(event, s.to); err != nil {
		return
	}
	s.w.(http.Flusher).Flush()
}

func (s *fakeStream) bookmark(version int, initial bool) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{ResourceVersion: strconv.Itoa(version)}}
	if initial {
		p.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	}
	s.send(watch.Bookmark, p)
}

func (f *fakeServer) serveWatch(w http.ResponseWriter, r *http.Request) {
	info, q := f.media(), r.URL.Query()
	w.Header().Set("Content-Type", info.MediaType+";stream=watch")
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	s := &fakeStream{f: f, w: w, to: info.StreamSerializer.Framer.NewFrameWriter(w),
		out: f.codecs.EncoderForVersion(info.StreamSerializer.Serializer, corev1.SchemeGroupVersion)}
	seconds, _ := strconv.Atoi(q.Get("timeoutSeconds"))
	end := time.NewTimer(time.Duration(seconds) * time.Second)
	defer end.Stop()
	minute := time.NewTicker(time.Minute)
	defer minute.Stop()
	at, _ := strconv.Atoi(q.Get("resourceVersion"))
	if q.Get("sendInitialEvents") == "true" || at == 0 {
		at = f.sendAll(s)
	}
	for muted := false; ; {
		muted = muted || f.mute.Load() // from then on
		next, wake, gone := f.since(at)
		if gone {
			s.send(watch.Error, &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: 410, Reason: metav1.StatusReasonExpired, Message: "too old"})
			return
		}
		for _, e := range next {
			if !muted {
				s.send(e.kind, f.told(e.pod))
			}
			at = e.version
		}
		select {
		case <-wake:
		case <-end.C:
			return
		case <-r.Context().Done():
			return
		case <-minute.C:
			f.mu.Lock()
			version := min(at, f.version)
			f.mu.Unlock()
			if !muted {
				s.bookmark(version, false)
			}
		}
	}
}

// sendAll sends everything there is, and up to which version that is.
func (f *fakeServer) sendAll(s *fakeStream) int {
	f.mu.Lock()
	version := f.version
	all := slices.Collect(maps.Values(f.pods))
	if f.hidden {
		all = nil
	}
	f.mu.Unlock()
	for _, p := range all {
		s.send(watch.Added, p)
	}
	if !f.ignorant {
		s.bookmark(version, true)
	}
	return version
}

// told is what a watch tells of a pod.
func (f *fakeServer) told(p *corev1.Pod) *corev1.Pod {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.odd != nil {
		p = p.DeepCopy()
		f.odd(p)
	}
	return p
}

func (f *fakeServer) since(version int) (next []fakeEvent, wake chan struct{}, gone bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if version < f.compacted {
		return nil, nil, true
	}
	for _, e := range f.history {
		if e.version > version {
			next = append(next, e)
		}
	}
	return next, f.wake, false
}

// link is a network between the source and the server that can be cut.
type link struct {
	refuse, freeze atomic.Bool // freeze: what is sent on the connections of now never arrives
	conns          chan net.Conn
	closed         chan struct{}
	mu             sync.Mutex
	open           []*wire
}

// wire is one connection, the server's end.
type wire struct {
	net.Conn
	frozen atomic.Bool
}

func (w *wire) Write(b []byte) (int, error) {
	if w.frozen.Load() {
		return len(b), nil
	}
	return w.Conn.Write(b)
}

func (w *wire) Read(b []byte) (int, error) {
	for {
		n, err := w.Conn.Read(b)
		if err != nil || !w.frozen.Load() {
			return n, err
		}
	}
}

func newLink() *link { return &link{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (l *link) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *link) Close() error   { close(l.closed); return nil }
func (l *link) Addr() net.Addr { return &net.UnixAddr{Name: "memory"} }

func (l *link) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if l.refuse.Load() {
		return nil, fmt.Errorf("dial: connection refused")
	}
	near, far := net.Pipe()
	w := &wire{Conn: far}
	w.frozen.Store(l.freeze.Load())
	select {
	case l.conns <- w:
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = append(l.open, w)
	return near, nil
}

// stall lets the connections of now carry nothing any more; they stay open.
func (l *link) stall() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.open {
		w.frozen.Store(true)
	}
}

// cut closes the connections of now.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.open {
		w.Close()
	}
	l.open = nil
}

// scene is a source and its server, in a bubble of time.
type scene struct {
	*fakeServer
	*link
	t     *testing.T
	api   *API
	last  Snapshot // as of the latest look
	count int
	box   box
	stop  func()
}

// box takes snapshots from one goroutine and gives the latest to another.
type box struct {
	mu    sync.Mutex
	last  Snapshot
	count int
}

func (b *box) put(s Snapshot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = s
	b.count++
}

func (b *box) get() (Snapshot, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last, b.count
}

// look waits until nothing is left to do at this moment, and takes what there is.
func (s *scene) look() {
	synctest.Wait()
	s.last, s.count = s.box.get()
}

// play runs a test with a server that change has set up, over HTTP/2 if h2 is set.
func play(t *testing.T, h2 bool, setup func(*scene, *APIConfig), run func(*scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{fakeServer: newFakeServer(), link: newLink(), t: t}
		transport := &http.Transport{DialContext: s.dial, Protocols: &http.Protocols{}}
		server := &http.Server{Handler: s.fakeServer, Protocols: &http.Protocols{}, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
		transport.Protocols.SetHTTP1(!h2)
		transport.Protocols.SetUnencryptedHTTP2(h2)
		server.Protocols.SetHTTP1(!h2)
		server.Protocols.SetUnencryptedHTTP2(h2)
		transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second} // as client-go sets them
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = server.Serve(s.link)
		}()
		cfg := APIConfig{
			NodeName: "node1", Rest: &rest.Config{Host: "http://server"}, HTTP: &http.Client{Transport: transport},
			Emit: s.box.put, Logger: slog.New(slog.DiscardHandler),
		}
		if setup != nil {
			setup(s, &cfg)
		}
		s.start(cfg)
		run(s)
		s.stop()
		transport.CloseIdleConnections()
		s.cut()
		_ = server.Close()
		<-served
	})
}

func (s *scene) start(cfg APIConfig) {
	var err error
	if s.api, err = NewAPI(cfg); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	api := s.api
	go func() { done <- api.Run(ctx) }()
	s.stop = func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	}
	s.look()
}

// after lets time go by until nothing is left to do at that moment.
func (s *scene) after(d time.Duration) {
	time.Sleep(d)
	s.look()
}

// wants holds the names in the latest snapshot against what is expected.
func (s *scene) wants(when, names string) {
	s.t.Helper()
	s.look()
	var got []string
	for _, p := range s.last.Pods {
		got = append(got, p.Name)
	}
	if text := strings.Join(got, " "); text != names {
		s.t.Errorf("%s: got %q, want %q", when, text, names)
	}
}

func (s *scene) problem(when, part string) {
	s.t.Helper()
	var all []string
	for _, p := range s.last.Problems {
		all = append(all, p.Message)
	}
	if text := strings.Join(all, "; "); !strings.Contains(text, part) || part == "" && text != "" {
		s.t.Errorf("%s: problems %q, want %q", when, text, part)
	}
}

// seen asserts which requests were made since it was last asked.
func (s *scene) seen(when, want string) {
	s.t.Helper()
	if got := strings.Join(s.asked(), " "); got != want {
		s.t.Errorf("%s: it was asked for %q, want %q", when, got, want)
	}
}

func uidOf(name string) types.UID {
	return types.UID(fmt.Sprintf("%08x-0000-4000-8000-%012x", len(name), []byte((name + "______")[:6])))
}

func apiPod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: uidOf(name)},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example/app:1"}}},
	}
}

const six = "p1 p2 p3 p4 p5 p6"
