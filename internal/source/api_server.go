package source

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	selectors "k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"nodeagent/internal/apiwatch"
)

// Deadlines of what the server is asked.
const (
	listDeadline = 30 * time.Second
	openDeadline = 10 * time.Second // until the head of a watch's answer
)

// How long a watch is. Over HTTP/2 the transport pings a connection that is silent
// for 30 s and gives it up after 15 s more; a watch that is alive there but silent
// for longer than it takes the server to send a bookmark (a minute) has a dead
// server behind its proxy. Over HTTP/1.1 nobody pings, so that watches are asked to
// be short.
const (
	watchPinged, silentPinged = 5 * time.Minute, 90 * time.Second
	watchShort, silentShort   = 30 * time.Second, 45 * time.Second
	silentFirst               = 10 * time.Second // while the first list is streamed
)

const protobuf = "application/vnd.kubernetes.protobuf"

// server asks the API server for the pods of one node.
type server struct {
	client   *rest.RESTClient
	codec    runtime.ParameterCodec
	selector string
	name     string
	pinged   *atomic.Bool // the transport notices by itself when the connection dies
}

func newServer(cfg APIConfig) (server, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return server{}, err
	}
	s := server{
		codec: runtime.NewParameterCodec(scheme), name: cfg.Rest.Host, pinged: &atomic.Bool{},
		selector: selectors.OneTermEqualSelector("spec.nodeName", cfg.NodeName).String(),
	}
	s.pinged.Store(!strings.HasPrefix(cfg.Rest.Host, "http://"))
	conf := rest.CopyConfig(cfg.Rest)
	conf.APIPath, conf.GroupVersion = "/api", &corev1.SchemeGroupVersion
	conf.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	conf.ContentType, conf.AcceptContentTypes = protobuf, protobuf+",application/json"
	conf.QPS, conf.RateLimiter = -1, nil // one request at a time, paced by our own back-off
	conf.WarningHandler = rest.NoWarnings{}
	shared := *cfg.HTTP
	shared.Transport = protocol{next: shared.Transport, pinged: s.pinged}
	var err error
	s.client, err = rest.RESTClientForConfigAndClient(conf, &shared)
	return s, err
}

// protocol notes which HTTP the server speaks.
type protocol struct {
	next   http.RoundTripper
	pinged *atomic.Bool
}

func (p protocol) RoundTrip(r *http.Request) (*http.Response, error) {
	next := p.next
	if next == nil {
		next = http.DefaultTransport
	}
	resp, err := next.RoundTrip(r)
	if err == nil {
		p.pinged.Store(resp.ProtoMajor >= 2)
	}
	return resp, err
}

// list reads all pods, as the server's store has them now: with no version it may
// not answer from a cache that lags behind.
func (s server) list(ctx context.Context) (*corev1.PodList, error) {
	ctx, cancel := context.WithTimeout(ctx, listDeadline)
	defer cancel()
	var list corev1.PodList
	err := s.client.Get().Resource("pods").MaxRetries(0).
		VersionedParams(&metav1.ListOptions{FieldSelector: s.selector}, s.codec).Do(ctx).Into(&list)
	return &list, err
}

// watch opens a watch: of what comes after a version, or, without one, of
// everything there is and then what comes after. It lasts until ctx ends.
func (s server) watch(ctx context.Context, version string) (watch.Interface, error) {
	length := int64(s.length().Seconds() * (1 + rand.Float64()/3))
	opts := metav1.ListOptions{
		FieldSelector: s.selector, ResourceVersion: version, AllowWatchBookmarks: true, TimeoutSeconds: &length, Watch: true,
	}
	if version == "" {
		opts.SendInitialEvents, opts.ResourceVersionMatch = new(true), metav1.ResourceVersionMatchNotOlderThan
	}
	return apiwatch.Open(ctx, s.client.Get().Resource("pods").MaxRetries(0).VersionedParams(&opts, s.codec), openDeadline)
}

func (s server) length() time.Duration {
	if s.pinged.Load() {
		return watchPinged
	}
	return watchShort
}

// silence is how long a watch may say nothing.
func (s server) silence() time.Duration {
	if s.pinged.Load() {
		return silentPinged
	}
	return silentShort
}

// isExpired tells whether what comes after a version cannot be told any more.
func isExpired(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err)
}

// isAhead tells whether the server does not know yet, or no longer, the version
// that it was asked about.
func isAhead(err error) bool {
	return apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
}

// backoff paces the tries.
type backoff struct{ step time.Duration }

const (
	firstPause = 800 * time.Millisecond
	lastPause  = 30 * time.Second
	longPause  = 2 * time.Minute // that a server may ask for
	stood      = time.Second     // what ended sooner than this was no watch
)

// next is how long to wait after a watch that ended like this. One that stood and
// was ended in order goes on at once; else the pause doubles, with as much again by
// chance, so that a thousand nodes do not come back in one moment. What the server
// asks for is obeyed.
func (b *backoff) next(err error, lasted time.Duration) time.Duration {
	if errors.Is(err, errPlain) || lasted >= stood && (err == nil || errors.Is(err, errEnded)) {
		b.step = 0
		return 0
	}
	if lasted >= lastPause*2 {
		b.step = 0
	}
	b.step = min(max(2*b.step, firstPause), lastPause)
	pause := b.step
	if seconds, asked := apierrors.SuggestsClientDelay(err); asked {
		pause = max(pause, min(time.Duration(seconds)*time.Second, longPause))
	}
	return pause + rand.N(b.step)
}
