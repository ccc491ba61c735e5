package config

// kubelet's defaults of how often the API server is asked.
const (
	defaultAPIQPS   = 50
	defaultAPIBurst = 100
)

// APIRate is how many requests there are to the API server in a second (0: no bound),
// and how many at once after a rest, from kubeAPIQPS and kubeAPIBurst. Where both are
// silent there is no bound: what asks has bounds of its own. Where one is, it has
// kubelet's default.
func (c *Config) APIRate() (qps float64, burst int) {
	k := &c.Kubelet
	if k.KubeAPIQPS == nil && k.KubeAPIBurst == 0 {
		return 0, 0
	}
	qps, burst = defaultAPIQPS, defaultAPIBurst
	if k.KubeAPIQPS != nil {
		qps = float64(*k.KubeAPIQPS)
	}
	if k.KubeAPIBurst != 0 {
		burst = int(k.KubeAPIBurst)
	}
	return qps, burst
}

// checkRates refuses what kubelet refuses.
func (c *Config) checkRates(bad func(field, format string, args ...any)) {
	k := &c.Kubelet
	for field, n := range map[string]*int32{"kubeAPIQPS": k.KubeAPIQPS, "kubeAPIBurst": &k.KubeAPIBurst, "eventRecordQPS": k.EventRecordQPS, "eventBurst": &k.EventBurst} {
		if n != nil && *n < 0 {
			bad(field, "%d is negative; a rate of 0 means no bound", *n)
		}
	}
}
