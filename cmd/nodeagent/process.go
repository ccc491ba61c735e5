package main

import (
	"fmt"
	"io"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"
)

// processFigures write what the daemon uses of the machine, by the names that every
// program in Go has, where kube-proxy's are looked for: there is no node API where it
// only serves services.
func processFigures() func(io.Writer) error {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return func(w io.Writer) error {
		all, err := r.Gather()
		if err != nil {
			return fmt.Errorf("gather what the process uses: %w", err)
		}
		for _, f := range all {
			if _, err := expfmt.MetricFamilyToText(w, f); err != nil {
				return err
			}
		}
		return nil
	}
}
