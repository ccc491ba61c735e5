package proxy

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"nodeagent/internal/net"
)

// figures are what dashboards know of a proxy, by kube-proxy's names.
type figures struct {
	sync, whole, part       histogram // of writing rules
	programming, forgetting histogram
	queued                  time.Time
	changes, pending        [kinds]int
	failures, partFailures  int // of which the second are those of changes
	foreign                 int
	forgotten, entries      int
	counts                  net.Counts
	noLocal                 [2]int // ports with policy Local, inside and outside, without an endpoint here
	answers                 [2]map[int]int
	asked                   map[[2]string]int // of the API server, by method and code
}

func newFigures() figures {
	rules, programming := exponential(0.001, 15), []float64{0.25, 0.5}
	for n := 1.0; n <= 59; n++ {
		programming = append(programming, n)
	}
	for n := 60.0; n <= 105; n += 5 {
		programming = append(programming, n)
	}
	for n := 120.0; n <= 300; n += 30 {
		programming = append(programming, n)
	}
	return figures{
		sync: histogram{bounds: rules}, whole: histogram{bounds: rules}, part: histogram{bounds: rules}, forgetting: histogram{bounds: rules},
		programming: histogram{bounds: programming}, answers: [2]map[int]int{{}, {}}, asked: map[[2]string]int{},
	}
}

func exponential(first float64, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = first
		first *= 2
	}
	return out
}

func (f *figures) wrote(took time.Duration, full bool) {
	f.sync.add(took)
	if full {
		f.whole.add(took)
	} else {
		f.part.add(took)
	}
}

// writeAsked writes what the API server was asked, by client-go's name.
func (f *figures) writeAsked(w io.Writer, host string) {
	const name = "rest_client_requests_total"
	fmt.Fprintf(w, "# HELP %s Number of HTTP requests, partitioned by status code, method, and host.\n# TYPE %s counter\n", name, name)
	keys := slices.SortedFunc(maps.Keys(f.asked), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	for _, k := range keys {
		fmt.Fprintf(w, "%s{code=%q,host=%q,method=%q} %d\n", name, k[1], host, k[0], f.asked[k])
	}
}

// histogram counts durations.
type histogram struct {
	bounds []float64 // seconds
	counts []uint64
	sum    float64
	n      uint64
}

func (h *histogram) add(d time.Duration) {
	if h.counts == nil {
		h.counts = make([]uint64, len(h.bounds))
	}
	s := d.Seconds()
	h.sum += s
	h.n++
	for i, b := range h.bounds {
		if s <= b {
			h.counts[i]++
			return
		}
	}
}

func (h *histogram) write(w io.Writer, name, help string) {
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s histogram\n", name, help, name)
	var sum uint64
	for i, b := range h.bounds {
		if h.counts != nil {
			sum += h.counts[i]
		}
		fmt.Fprintf(w, "%s_bucket{le=\"%g\"} %d\n", name, b, sum)
	}
	fmt.Fprintf(w, "%s_bucket{le=\"+Inf\"} %d\n%s_sum %g\n%s_count %d\n", name, h.n, name, h.sum, name, h.n)
}

// count counts the ports that policy Local leaves without an endpoint.
func (f *figures) count(d *net.Diff) {
	for _, c := range d.Entries {
		f.countOne(c.Old, -1)
		f.countOne(c.New, 1)
	}
}

func (f *figures) countOne(e *net.Entry, n int) {
	if e == nil {
		return
	}
	if e.LocalInside && e.ForClusterIP() == net.Drop {
		f.noLocal[0] += n
	}
	if e.LocalOutside && len(e.Fronts) > 0 && e.ForOutside() == net.Drop {
		f.noLocal[1] += n
	}
}
