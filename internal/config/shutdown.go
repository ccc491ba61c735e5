package config

import "time"

// checkShutdown refuses times for the end of pods that do not fit together, as kubelet
// does.
func (c *Config) checkShutdown(bad func(field, format string, args ...any)) {
	whole, critical := c.Kubelet.ShutdownGracePeriod.Duration, c.Kubelet.ShutdownGracePeriodCriticalPods.Duration
	for field, d := range map[string]time.Duration{"shutdownGracePeriod": whole, "shutdownGracePeriodCriticalPods": critical} {
		if d < 0 || d > 0 && d < time.Second {
			bad(field, "%v is neither 0 nor at least a second", d)
		}
	}
	if critical > whole {
		bad("shutdownGracePeriodCriticalPods", "%v is more than shutdownGracePeriod, %v, of which it is a part", critical, whole)
	}
	if len(c.Kubelet.ShutdownGracePeriodByPodPriority) > 0 && (whole > 0 || critical > 0) {
		bad("shutdownGracePeriodByPodPriority", "it takes the place of shutdownGracePeriod and shutdownGracePeriodCriticalPods; leave those out")
	}
	for _, g := range c.Kubelet.ShutdownGracePeriodByPodPriority {
		if g.ShutdownGracePeriodSeconds < 0 {
			bad("shutdownGracePeriodByPodPriority", "%d seconds for priority %d are less than none", g.ShutdownGracePeriodSeconds, g.Priority)
		}
	}
}
