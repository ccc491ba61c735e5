package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestProcessFigures: what dashboards ask of any program is there, and nothing of
// pods.
func TestProcessFigures(t *testing.T) {
	var text bytes.Buffer
	if err := processFigures()(&text); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds", "process_open_fds", "go_goroutines", "go_info",
	} {
		if !strings.Contains(text.String(), "# TYPE "+name+" ") {
			t.Errorf("there is no %s", name)
		}
	}
	if strings.Contains(text.String(), "kubelet_") {
		t.Error("what is of pods is there")
	}
}
