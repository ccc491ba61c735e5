package main

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/worker"
)

// relists counts the looks at containerd's records, under the names by which alerts
// know those of kubelet's PLEG.
type relists struct {
	took, interval prometheus.Observer
	last           prometheus.Gauge
	before         *lastTime
}

// lastTime is when something began last.
type lastTime struct {
	mu sync.Mutex
	at time.Time
}

// next notes another time and returns how long ago the one before was; zero: it is the
// first.
func (l *lastTime) next(at time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.at
	if l.at = at; before.IsZero() {
		return 0
	}
	return at.Sub(before)
}

func newRelists(r prometheus.Registerer) relists {
	took := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "kubelet_pleg_relist_duration_seconds", Help: "[ALPHA] Duration in seconds for relisting pods in PLEG.", Buckets: prometheus.DefBuckets,
	})
	interval := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "kubelet_pleg_relist_interval_seconds", Help: "[ALPHA] Interval in seconds between relisting in PLEG.", Buckets: prometheus.DefBuckets,
	})
	last := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kubelet_pleg_last_seen_seconds", Help: "[ALPHA] Timestamp in seconds when PLEG was last seen active.",
	})
	r.MustRegister(took, interval, last)
	return relists{took, interval, last, &lastTime{}}
}

// ended takes a look that came to its end.
func (l relists) ended(began time.Time, took time.Duration) {
	l.took.Observe(took.Seconds())
	l.last.Set(float64(began.Unix()))
	if since := l.before.next(began); since > 0 {
		l.interval.Observe(since.Seconds())
	}
}

// startBuckets are those of all that tells how long a pod takes to start.
var startBuckets = []float64{0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600}

// podTimes implements worker.Figures.
type podTimes struct {
	began, ran prometheus.Observer
	steps      [worker.StepKill + 1]prometheus.Observer
	counts     counts
}

func newPodTimes(r prometheus.Registerer, c counts) podTimes {
	began := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "kubelet_pod_worker_start_duration_seconds", Help: "[ALPHA] Duration in seconds from kubelet seeing a pod to starting a worker.", Buckets: prometheus.DefBuckets,
	})
	ran := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "kubelet_pod_start_duration_seconds", Help: "[ALPHA] Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run", Buckets: startBuckets,
	})
	steps := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "kubelet_pod_worker_duration_seconds", Help: "[ALPHA] Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync", Buckets: prometheus.DefBuckets,
	}, []string{"operation_type"})
	r.MustRegister(began, ran, steps)
	t := podTimes{began: began, ran: ran, counts: c}
	for kind, name := range map[worker.StepKind]string{worker.StepCreate: "create", worker.StepSync: "sync", worker.StepKill: "kill"} {
		t.steps[kind] = steps.WithLabelValues(name) // once: a step costs no look-up
	}
	return t
}

func (t podTimes) Began(waited time.Duration) { t.began.Observe(waited.Seconds()) }
func (t podTimes) Ran(took time.Duration)     { t.ran.Observe(took.Seconds()) }
func (t podTimes) Step(kind worker.StepKind, took time.Duration) {
	t.steps[kind].Observe(took.Seconds())
}

func (t podTimes) Started(p *corev1.Pod, container, reason string) {
	t.counts.container(p, container, reason)
}

// nodeRequests counts what is asked of the node API.
type nodeRequests struct {
	total *prometheus.CounterVec
	now   *prometheus.GaugeVec
	took  *prometheus.HistogramVec
}

func newNodeRequests(r prometheus.Registerer) nodeRequests {
	of := []string{"method", "path", "server_type", "long_running"}
	n := nodeRequests{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kubelet_http_requests_total", Help: "[ALPHA] Number of the http requests received since the server started"}, of),
		now:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kubelet_http_inflight_requests", Help: "[ALPHA] Number of the inflight http requests"}, of),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kubelet_http_requests_duration_seconds", Help: "[ALPHA] Duration in seconds to serve http requests", Buckets: prometheus.DefBuckets,
		}, of),
	}
	r.MustRegister(n.total, n.now, n.took)
	return n
}

// begun counts a request of the node API, whose words are bounded.
func (n nodeRequests) begun(method, path string, long bool) (ended func()) {
	labels := []string{method, path, "readwrite", strconv.FormatBool(long)}
	begun, now := time.Now(), n.now.WithLabelValues(labels...)
	n.total.WithLabelValues(labels...).Inc()
	now.Inc()
	return func() {
		now.Dec()
		n.took.WithLabelValues(labels...).Observe(time.Since(begun).Seconds())
	}
}

// serverRequests counts what the node asks of the API server, by client-go's names.
type serverRequests struct {
	total *prometheus.CounterVec
	took  *prometheus.HistogramVec
}

func newServerRequests(r prometheus.Registerer) serverRequests {
	s := serverRequests{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rest_client_requests_total", Help: "[ALPHA] Number of HTTP requests, partitioned by status code, method, and host.",
		}, []string{"code", "method", "host"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "rest_client_request_duration_seconds", Help: "[ALPHA] Request latency in seconds. Broken down by verb, and host.",
			Buckets: []float64{0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0},
		}, []string{"verb", "host"}),
	}
	r.MustRegister(s.total, s.took)
	return s
}

// answered takes a request that was answered, or was not: code 0. Codes are the API
// server's, which is trusted, and three digits.
func (s serverRequests) answered(method, host string, code int, took time.Duration) {
	word := "<error>"
	if code != 0 {
		word = strconv.Itoa(code)
	}
	s.total.WithLabelValues(word, method, host).Inc()
	s.took.WithLabelValues(method, host).Observe(took.Seconds())
}

// heard shows when the API server was last heard by the watch of this node's pods. A
// server says something each minute, so that an old date is a watch that stalls.
func (o *operations) heard(last func() time.Time) {
	o.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "nodeagent_pods_watch_heard_timestamp_seconds",
		Help: "When the API server was last heard by the watch of this node's pods, which happens each minute; 0: never.",
	}, func() float64 {
		if at := last(); !at.IsZero() {
			return float64(at.Unix())
		}
		return 0
	}))
}
