package objecttest

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"

	"nodeagent/internal/pod"
)

// Handler is the server over the wire: protobuf to those who accept it, and else
// JSON. cut, if it is not nil, is asked before each event of a watch and breaks
// the connection in the middle of it.
func (s *Server) Handler(cut func() bool) http.Handler {
	types := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, authenticationv1.AddToScheme} {
		if err := add(types); err != nil {
			panic(err)
		}
	}
	return &handler{s: s, codecs: serializer.NewCodecFactory(types), params: runtime.NewParameterCodec(types), cut: cut}
}

type handler struct {
	s      *Server
	codecs serializer.CodecFactory
	params runtime.ParameterCodec
	cut    func() bool
}

// asked is what a path means.
type asked struct {
	ref   pod.ObjectRef
	one   bool
	token bool
}

func parse(path string) (asked, bool) {
	rest, ok := strings.CutPrefix(path, "/api/v1/")
	parts := strings.Split(rest, "/")
	var a asked
	if len(parts) > 2 && parts[0] == "namespaces" {
		a.ref.Namespace, parts = parts[1], parts[2:]
	}
	if len(parts) > 1 {
		a.ref.Name, a.one = parts[1], true
	}
	a.ref.Kind = kinds[parts[0]]
	a.token = len(parts) == 3 && parts[0] == "serviceaccounts" && parts[2] == "token"
	return a, ok && (a.ref.Kind != "" || a.token)
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a, ok := parse(r.URL.Path)
	if !ok {
		http.NotFound(w, r)
		return
	}
	media := runtime.ContentTypeJSON
	if strings.HasPrefix(r.Header.Get("Accept"), runtime.ContentTypeProtobuf) {
		media = runtime.ContentTypeProtobuf
	}
	info, _ := runtime.SerializerInfoForMediaType(h.codecs.SupportedMediaTypes(), media)
	var answer runtime.Object
	var err error
	switch {
	case a.token:
		answer, err = h.token(r, a)
	case a.one:
		answer, err = h.s.Get(r.Context(), a.ref)
	case a.ref.Kind == serviceKind && r.URL.Query().Get("watch") == "":
		answer, err = h.s.ListServices(r.Context(), metav1.ListOptions{Continue: r.URL.Query().Get("continue")})
	default:
		name, single := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
		if !single && a.ref.Kind != serviceKind || a.ref.Kind == pod.ClaimKind || a.ref.Kind == "PersistentVolume" {
			err = apierrors.NewForbidden(resource(a.ref.Kind), "", errors.New("a node reads one object at a time"))
			break
		}
		a.ref.Name = name
		if r.URL.Query().Get("watch") != "" {
			err = h.watch(w, r, a, info)
			if err == nil {
				return
			}
			break
		}
		answer, err = h.list(r, a)
	}
	code := http.StatusOK
	if err != nil {
		answer, code = statusOf(err)
		if code == 0 {
			panic(http.ErrAbortHandler)
		}
		if s, ok := apierrors.SuggestsClientDelay(err); ok && s > 0 {
			w.Header().Set("Retry-After", "1")
		}
	}
	w.Header().Set("Content-Type", media)
	w.WriteHeader(code)
	_ = h.encoder(info, answer).Encode(answer, w)
}

// statusOf is an error on the wire; code zero means none but a broken connection.
func statusOf(err error) (runtime.Object, int) {
	status, ok := err.(apierrors.APIStatus)
	if !ok {
		return nil, 0
	}
	answer := status.Status()
	return &answer, int(answer.Code)
}

func (h *handler) encoder(info runtime.SerializerInfo, o runtime.Object) runtime.Encoder {
	version := corev1.SchemeGroupVersion
	if _, ok := o.(*authenticationv1.TokenRequest); ok {
		version = authenticationv1.SchemeGroupVersion
	}
	return h.codecs.WithoutConversion().EncoderForVersion(info.Serializer, version)
}

func (h *handler) token(r *http.Request, a asked) (runtime.Object, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	o, _, err := h.codecs.UniversalDeserializer().Decode(body, nil, nil)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	request, ok := o.(*authenticationv1.TokenRequest)
	if !ok {
		return nil, apierrors.NewBadRequest("no TokenRequest")
	}
	return h.s.Token(r.Context(), a.ref.Namespace, a.ref.Name, request)
}

func (h *handler) list(r *http.Request, a asked) (runtime.Object, error) {
	o, version, err := h.s.List(r.Context(), a.ref)
	if err != nil {
		return nil, err
	}
	if a.ref.Kind == pod.SecretKind {
		l := &corev1.SecretList{ListMeta: metav1.ListMeta{ResourceVersion: version}}
		if o != nil {
			l.Items = append(l.Items, *o.(*corev1.Secret))
		}
		return l, nil
	}
	l := &corev1.ConfigMapList{ListMeta: metav1.ListMeta{ResourceVersion: version}}
	if o != nil {
		l.Items = append(l.Items, *o.(*corev1.ConfigMap))
	}
	return l, nil
}

func (h *handler) watch(w http.ResponseWriter, r *http.Request, a asked, info runtime.SerializerInfo) error {
	var options metav1.ListOptions
	if err := h.params.DecodeParameters(r.URL.Query(), corev1.SchemeGroupVersion, &options); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	events, err := h.s.Watch(r.Context(), a.ref, options)
	if err != nil {
		return err
	}
	defer events.Stop()
	media := info.MediaType
	if media == runtime.ContentTypeProtobuf {
		media += ";stream=watch"
	}
	w.Header().Set("Content-Type", media)
	w.WriteHeader(http.StatusOK)
	flush := w.(http.Flusher)
	flush.Flush()
	out := streaming.NewEncoder(info.StreamSerializer.NewFrameWriter(w), h.codecs.WithoutConversion().EncoderForVersion(info.StreamSerializer.Serializer, corev1.SchemeGroupVersion))
	for e := range events.ResultChan() {
		if h.cut != nil && h.cut() {
			_, _ = w.Write([]byte{0, 0, 0, 200, 'k', '8', 's'}) // the beginning of a frame
			flush.Flush()
			panic(http.ErrAbortHandler)
		}
		if err := out.Encode(h.frame(e, info)); err != nil {
			return nil
		}
		flush.Flush()
	}
	return nil
}

// frame is an event on the wire.
func (h *handler) frame(e watch.Event, info runtime.SerializerInfo) runtime.Object {
	raw, err := runtime.Encode(h.codecs.WithoutConversion().EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion), e.Object)
	if err != nil {
		panic(err)
	}
	if info.MediaType == runtime.ContentTypeJSON && !json.Valid(raw) {
		panic("objecttest: no JSON")
	}
	return &metav1.WatchEvent{Type: string(e.Type), Object: runtime.RawExtension{Raw: raw}}
}
