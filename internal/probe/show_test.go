package probe

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestMetrics: what is shown and counted of a probe, under kubelet's names.
func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, map[Kind]script{Readiness: func(ctx context.Context, at time.Duration) Outcome {
			if at == 0 {
				return slow(200*time.Millisecond, Success)(ctx, at)
			}
			return Outcome{Result: Failure, Text: "no\x1b"}
		}})
		s.runs(corev1.Container{ReadinessProbe: asks()}, "a")
		time.Sleep(25 * time.Second)
		all := s.set.Show()
		if len(all) != 1 || all[0].Successful != 1 || all[0].Failed != 2 || all[0].InRow != 2 ||
			all[0].Message != `Readiness probe failed: no\x1b` || all[0].Next == nil || time.Until(*all[0].Next) > 10*time.Second {
			t.Errorf("shown: %+v", all)
		}
		var out bytes.Buffer
		if err := s.set.WriteMetrics(&out); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			`prober_probe_total{container="app",namespace="n",pod="p",pod_uid="u",probe_type="Readiness",result="failed"} 2`,
			`prober_probe_total{container="app",namespace="n",pod="p",pod_uid="u",probe_type="Readiness",result="successful"} 1`,
			`prober_probe_duration_seconds_bucket{container="app",namespace="n",pod="p",probe_type="Readiness",le="0.1"} 0`,
			`prober_probe_duration_seconds_bucket{container="app",namespace="n",pod="p",probe_type="Readiness",le="0.25"} 1`,
			`prober_probe_duration_seconds_bucket{container="app",namespace="n",pod="p",probe_type="Readiness",le="+Inf"} 1`,
			`prober_probe_duration_seconds_sum{container="app",namespace="n",pod="p",probe_type="Readiness"} 0.2`,
			`prober_probe_duration_seconds_count{container="app",namespace="n",pod="p",probe_type="Readiness"} 1`,
		} {
			if !strings.Contains(out.String(), want+"\n") {
				t.Errorf("no line %s in\n%s", want, out.String())
			}
		}
		s.stop()
	})
}
