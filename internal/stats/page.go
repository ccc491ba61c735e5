package stats

import (
	"bufio"
	"io"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// page writes figures in Prometheus' text format, one family after the other: a whole
// page would cost many times its size in memory.
type page struct {
	w   *bufio.Writer
	err error
}

func newPage(w io.Writer) *page { return &page{w: bufio.NewWriter(w)} }

func (p *page) end() error {
	if p.err != nil {
		return p.err
	}
	return p.w.Flush()
}

// family is what the figures of one name have in common.
type family struct {
	name, help string
	counter    bool // else a gauge
}

// write writes the figures of a family; a family without any is left out.
func (p *page) write(f family, all []*dto.Metric) {
	if len(all) == 0 || p.err != nil {
		return
	}
	kind := dto.MetricType_GAUGE
	if f.counter {
		kind = dto.MetricType_COUNTER
	}
	_, p.err = expfmt.MetricFamilyToText(p.w, &dto.MetricFamily{Name: &f.name, Help: &f.help, Type: &kind, Metric: all})
}

// one writes a family of one figure.
func (p *page) one(name, help string, v float64, labels ...*dto.LabelPair) {
	f := family{name: name, help: help}
	p.write(f, []*dto.Metric{f.metric(v, time.Time{}, labels)})
}

// count writes a family of one counter.
func (p *page) count(name, help string, v float64) {
	f := family{name: name, help: help, counter: true}
	p.write(f, []*dto.Metric{f.metric(v, time.Time{}, nil)})
}

// metric is one figure; a zero time is not told.
func (f family) metric(v float64, at time.Time, labels []*dto.LabelPair) *dto.Metric {
	m := &dto.Metric{Label: labels}
	if !at.IsZero() {
		m.TimestampMs = new(at.UnixMilli())
	}
	if f.counter {
		m.Counter = &dto.Counter{Value: &v}
	} else {
		m.Gauge = &dto.Gauge{Value: &v}
	}
	return m
}

// maxLabel is the most that is told of a label's value: more than any name that the
// API server takes.
const maxLabel = 1024

// label is one label. Its value may be anything that a pod or an image is called; the
// library escapes what would end it, and one byte that is no UTF-8 would have the
// whole page refused.
func label(name, value string) *dto.LabelPair {
	if len(value) > maxLabel {
		value = value[:maxLabel]
	}
	value = strings.ToValidUTF8(value, "\uFFFD")
	return &dto.LabelPair{Name: &name, Value: &value}
}
