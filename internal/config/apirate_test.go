package config

import "testing"

// TestAPIRate: there is no bound unless somebody sets one; half of one has kubelet's
// other half.
func TestAPIRate(t *testing.T) {
	for text, want := range map[string]struct {
		qps   float64
		burst int
	}{
		"":                               {0, 0},
		"kubeAPIQPS: 5\n":                {5, 100},
		"kubeAPIBurst: 7\n":              {50, 7},
		"kubeAPIQPS: 3\nkubeAPIBurst: 4": {3, 4},
		"kubeAPIQPS: 0\n":                {0, 100},
	} {
		c, err := Load(clusterFile(t, text))
		if err != nil || len(c.Unused) > 0 {
			t.Fatalf("%q: %v, unused are %v", text, err, c.Unused)
		}
		if qps, burst := c.APIRate(); qps != want.qps || burst != want.burst {
			t.Errorf("%q: %v a second and %d at once", text, qps, burst)
		}
	}
}
