package probe

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
)

// watched is what is known of one pod with probes.
type watched struct {
	pod    *corev1.Pod
	runs   map[string]*run       // by container id
	health map[string]pod.Health // published; never changed, only replaced
}

// run is one run of a container with probes.
type run struct {
	pod     *watched
	spec    *corev1.Container
	id      string
	host    string // the pod's address
	started time.Time
	adopted bool // an earlier daemon may have watched it
	leaving bool // the pod is on its way out
	gone    bool // the run has ended
	seen    bool // in the turn of Watch that goes on

	health pod.Health // the latest verdict; published once it is on record
	saving bool       // somebody puts it on record now
	probes [kinds]*probe
}

// probe is one probe of a run.
type probe struct {
	run    *run
	kind   Kind
	flying bool
	holds  bool   // one of the slots of its class
	index  int    // in the heap, -1 outside
	flight uint64 // number of its latest flight
	due    time.Time
	target *Target
	tally  tally
	text   string // what was told of the latest outcome; "" of a success
	counts [counted]uint32
	taken  durations
}

func newRun(w *watched, spec *corev1.Container, c *pod.Container, health pod.Health, adopted bool) *run {
	r := &run{pod: w, spec: spec, id: c.ID, started: c.Started, health: health, adopted: adopted}
	for k := range kinds {
		if k.of(spec) != nil {
			r.probes[k] = &probe{run: r, kind: k, index: -1}
		}
	}
	return r
}

func (p *probe) spec() *corev1.Probe { return p.kind.of(p.run.spec) }

// settle takes a probe's outcome into the verdict and tells whether that
// changed. age is how long the container had been running when the probe began.
func (p *probe) settle(ok bool, age time.Duration) bool {
	r, spec := p.run, p.spec()
	if !ok && early(p.kind, spec, age) {
		return false
	}
	if !reached(spec, ok, p.tally.add(ok)) {
		return false
	}
	before := r.health
	r.health = judge(before, p.kind, ok, r.spec, r.pod.pod.Spec.RestartPolicy)
	return r.health != before
}
