package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"nodeagent/test/measure"
)

// What is measured in a turn.
const (
	createdLatency = iota
	movedLatency
	createdWhole // both from when they were asked for
	movedWhole
	createdCPU
	movedCPU
	cameCPU
	programmed
	answering // from the start of the program until the last service is answered
	memory
	extra   // of a connection over a direct one
	window  // the time in which a change's CPU was counted
	resting // CPU in as long a time when nothing changes
	burstTook
	burstCPU
	burstBatches
	bareCPU  // of a bare program that writes one chain beside the rules
	leastCPU // and beside rules that do nothing but translate
	valueCount
)

// fromAsked leads from a latency to the same with the API server's own time in it.
const fromAsked = createdWhole - createdLatency

// values are what was measured of a side with some number of services.
type values [valueCount][]float64

func (v *values) add(at int, x float64) { v[at] = append(v[at], x) }

// median is NaN-free: 0 where nothing was measured.
func (v *values) median(at int) float64 {
	if v == nil || len(v[at]) == 0 {
		return 0
	}
	return measure.Median(v[at])
}

// goals are the limits of a mode, in seconds and bytes.
type goals struct{ latency, cpu, programmed, extra, memory float64 }

var limits = map[string]goals{
	"nftables": {latency: 0.010, cpu: 0.001, programmed: 1, extra: 10e-6, memory: 90e6},
	"iptables": {latency: 0.040, cpu: 0.030, programmed: 5, extra: 15e-6, memory: 90e6},
}

// kinds are the lines of the tables.
var kinds = []struct {
	work  string
	at    int
	show  func(float64) string
	unit  string
	scale float64
	limit func(goals) float64 // nil: it is only shown
}{
	{"service created until it is answered", createdLatency, measure.MS, "ms", 1e3, func(g goals) float64 { return g.latency }},
	{"endpoint moved until the new one answers", movedLatency, measure.MS, "ms", 1e3, func(g goals) float64 { return g.latency }},
	{"CPU of a service created", createdCPU, measure.MS, "ms", 1e3, func(g goals) float64 { return g.cpu }},
	{"CPU of an endpoint moved", movedCPU, measure.MS, "ms", 1e3, func(g goals) float64 { return g.cpu }},
	{"CPU of an endpoint more", cameCPU, measure.MS, "ms", 1e3, func(g goals) float64 { return g.cpu }},
	{"all programmed", programmed, measure.MS, "s", 1, func(g goals) float64 { return g.programmed }},
	{"memory (PSS)", memory, measure.MB, "MB", 1e-6, func(g goals) float64 { return g.memory }},
	{"a connection, over a direct one", extra, micro, "µs", 1e6, func(g goals) float64 { return g.extra }},
	{"service asked for until it is answered", createdWhole, measure.MS, "s", 1, nil},
	{"endpoint's move asked for until it answers", movedWhole, measure.MS, "s", 1, nil},
	{"CPU at rest, in the time of a change", resting, measure.MS, "s", 1, nil},
	{"start until the last service is answered", answering, measure.MS, "s", 1, nil},
	{"many changes at once until the last is in force", burstTook, measure.MS, "s", 1, nil},
	{"their CPU", burstCPU, measure.MS, "s", 1, nil},
	{"their batches", burstBatches, number, "", 1, nil},
	{"CPU of a bare iptables-nft-restore of one chain there", bareCPU, measure.MS, "s", 1, nil},
	{"the same where each endpoint is one rule, and nothing else", leastCPU, measure.MS, "s", 1, nil},
}

// shown is a median; nothing, where nothing was measured.
func (v *values) shown(at int, show func(float64) string) string {
	if len(v[at]) == 0 {
		return "-"
	}
	return show(v.median(at))
}

// rows are the table's: medians of all turns with the most services.
func (b *bench) rows() []measure.Row {
	ours, peer := b.sides[0].of(b.services), b.sides[1].of(b.services)
	var all []measure.Row
	for _, k := range kinds {
		if k.limit == nil {
			continue
		}
		all = append(all, measure.Row{
			Work: fmt.Sprintf("%s, %d services", k.work, b.services), Ours: ours.shown(k.at, k.show), Peer: peer.shown(k.at, k.show),
			Value: ours.median(k.at) * k.scale, Limit: k.limit(b.goals) * k.scale, Unit: k.unit,
			Note: ratio(ours.median(k.at), peer.median(k.at)) + "; " + spread(ours[k.at], peer[k.at], k.show),
		})
	}
	if len(b.beside.ours) > 0 {
		all = append(all, b.beside.row(b.services))
	}
	for _, h := range b.healed {
		all = append(all, h.row(b.services))
	}
	return all
}

func ratio(ours, peer float64) string {
	if peer <= 0 {
		return "no ratio"
	}
	return fmt.Sprintf("%.3g ×", ours/peer)
}

// spread says how far the values of each side lie apart.
func spread(ours, peer []float64, show func(float64) string) string {
	return fmt.Sprintf("%d and %d values: ours %s, kube-proxy %s", len(ours), len(peer), ends(ours, show), ends(peer, show))
}

func ends(v []float64, show func(float64) string) string {
	if len(v) == 0 {
		return "nothing"
	}
	return show(slices.Min(v)) + " to " + show(slices.Max(v))
}

// printGrowth shows every line for every number of services, ours and kube-proxy's.
func (b *bench) printGrowth(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "OURS / KUBE-PROXY")
	for _, n := range b.sizes() {
		fmt.Fprintf(w, "\t%d", n)
	}
	fmt.Fprintln(w)
	for _, k := range kinds {
		if !b.measured(k.at) {
			continue
		}
		fmt.Fprint(w, k.work)
		for _, n := range b.sizes() {
			fmt.Fprintf(w, "\t%s / %s", b.sides[0].of(n).shown(k.at, k.show), b.sides[1].of(n).shown(k.at, k.show))
		}
		fmt.Fprintln(w)
	}
	w.Flush()
}

// measured tells whether there is a value at all: not each mode has all lines.
func (b *bench) measured(at int) bool {
	return slices.ContainsFunc(b.sides, func(s *side) bool {
		for _, v := range s.values {
			if len(v[at]) > 0 {
				return true
			}
		}
		return false
	})
}

func micro(x float64) string  { return fmt.Sprintf("%.1f µs", 1e6*x) }
func number(x float64) string { return fmt.Sprintf("%.0f", x) }
