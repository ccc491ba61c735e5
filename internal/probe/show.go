package probe

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"
)

// Shown is one probe as an operator sees it.
type Shown struct {
	Namespace   string `json:"namespace"`
	Pod         string `json:"pod"`
	UID         string `json:"uid"`
	Container   string `json:"container"`
	ContainerID string `json:"containerID"`
	Probe       string `json:"probe"` // Startup, Readiness or Liveness
	Successful  uint32 `json:"successful"`
	Failed      uint32 `json:"failed"`
	Unknown     uint32 `json:"unknown"` // it could not be made
	InRow       int32  `json:"inRow"`   // how often it went as the last time
	// Message is what was last told of it; "" after a success.
	Message string `json:"message,omitempty"`
	// Next is when it is due; nil: it runs, or is not asked now.
	Next *time.Time `json:"next,omitempty"`

	taken durations
}

// Show returns every probe of a container that runs, by pod, container and kind.
func (s *Set) Show() []Shown {
	s.mu.Lock()
	var all []Shown
	for _, w := range s.pods {
		for _, r := range w.runs {
			for _, p := range r.probes {
				if p != nil {
					all = append(all, p.show())
				}
			}
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b Shown) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod),
			cmp.Compare(a.Container, b.Container), cmp.Compare(a.ContainerID, b.ContainerID), cmp.Compare(a.Probe, b.Probe))
	})
	return all
}

func (p *probe) show() Shown {
	r := p.run
	meta := &r.pod.pod.ObjectMeta
	out := Shown{
		Namespace: meta.Namespace, Pod: meta.Name, UID: string(meta.UID), Container: r.spec.Name, ContainerID: r.id,
		Probe: p.kind.String(), InRow: p.tally.inRow, Message: p.text, taken: p.taken,
		Successful: p.counts[countSuccess], Failed: p.counts[countFailure], Unknown: p.counts[countUnknown],
	}
	if p.index >= 0 {
		out.Next = new(p.due)
	}
	return out
}

// bounds are the upper bounds of the histogram, in seconds (client_golang's
// DefBuckets, which kubelet's has).
var bounds = [...]float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// durations is a histogram of how long a probe took.
type durations struct {
	buckets [len(bounds) + 1]uint32
	sum     float64
}

func (d *durations) add(took time.Duration) {
	i, _ := slices.BinarySearch(bounds[:], took.Seconds())
	d.buckets[i]++
	d.sum += took.Seconds()
}

// WriteMetrics writes what kubelet serves at /metrics/probes, in Prometheus' text
// format.
func (s *Set) WriteMetrics(to io.Writer) error {
	all := s.Show()
	w := bufio.NewWriter(to)
	fmt.Fprint(w, "# HELP prober_probe_duration_seconds [ALPHA] Duration in seconds for a probe response.\n# TYPE prober_probe_duration_seconds histogram\n")
	for i := range all {
		all[i].writeDurations(w)
	}
	fmt.Fprint(w, "# HELP prober_probe_total [ALPHA] Cumulative number of a liveness, readiness or startup probe for a container by result.\n# TYPE prober_probe_total counter\n")
	for _, p := range all {
		for _, r := range []struct {
			name  string
			count uint32
		}{{"failed", p.Failed}, {"successful", p.Successful}, {"unknown", p.Unknown}} {
			if r.count > 0 {
				fmt.Fprintf(w, "prober_probe_total{container=%q,namespace=%q,pod=%q,pod_uid=%q,probe_type=%q,result=%q} %d\n",
					p.Container, p.Namespace, p.Pod, p.UID, p.Probe, r.name, r.count)
			}
		}
	}
	return w.Flush()
}

func (p *Shown) writeDurations(w io.Writer) {
	labels := fmt.Sprintf("container=%q,namespace=%q,pod=%q,probe_type=%q", p.Container, p.Namespace, p.Pod, p.Probe)
	total := uint32(0)
	for i, n := range p.taken.buckets {
		total += n
		le := "+Inf"
		if i < len(bounds) {
			le = strconv.FormatFloat(bounds[i], 'g', -1, 64)
		}
		fmt.Fprintf(w, "prober_probe_duration_seconds_bucket{%s,le=%q} %d\n", labels, le, total)
	}
	fmt.Fprintf(w, "prober_probe_duration_seconds_sum{%s} %g\nprober_probe_duration_seconds_count{%s} %d\n", labels, p.taken.sum, labels, total)
}
