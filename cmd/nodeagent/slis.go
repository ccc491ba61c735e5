package main

import (
	"context"
	"fmt"
	"io"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"nodeagent/internal/server"
)

// slis tell at /metrics/slis whether what /healthz checks holds, as every component of
// Kubernetes does. Each scrape is a look.
type slis struct {
	registry *prometheus.Registry
	holds    *prometheus.GaugeVec
	looks    *prometheus.CounterVec
}

func newSLIs() slis {
	s := slis{
		registry: prometheus.NewRegistry(),
		holds: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kubernetes_healthcheck", Help: "[STABLE] This metric records the result of a single healthcheck.",
		}, []string{"name", "type"}),
		looks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubernetes_healthchecks_total", Help: "[STABLE] This metric records the results of all healthcheck.",
		}, []string{"name", "status", "type"}),
	}
	s.registry.MustRegister(s.holds, s.looks)
	return s
}

// write looks at the checks and writes what was seen so far.
func (s slis) write(checks server.Checks) func(context.Context, io.Writer) error {
	return func(_ context.Context, w io.Writer) error {
		for _, c := range checks {
			holds, status := 1.0, "success"
			if c.OK() != nil {
				holds, status = 0, "error"
			}
			s.holds.WithLabelValues(c.Name, "healthz").Set(holds)
			s.looks.WithLabelValues(c.Name, status, "healthz").Inc()
		}
		all, err := s.registry.Gather()
		if err != nil {
			return fmt.Errorf("gather what is healthy: %w", err)
		}
		for _, f := range all {
			if _, err := expfmt.MetricFamilyToText(w, f); err != nil {
				return err
			}
		}
		return nil
	}
}
