package workertest

import (
	"time"

	"nodeagent/internal/pod"
)

// Watch implements worker.Probes: the verdict on a run follows from its
// behaviour and its age, so that it is the same for every daemon.
func (d *Daemon) Watch(_ pod.Desired, seen pod.RuntimeState) map[string]pod.Health {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	verdicts := map[string]pod.Health{}
	for i := range seen.Containers {
		c := d.w.containers[seen.Containers[i].ID]
		if c == nil || c.State != pod.ContainerRunning || c.behaviour.StartupTakes == 0 && c.behaviour.FailsAfter == 0 {
			continue
		}
		age := time.Since(c.Started)
		h := pod.Health{Started: age >= c.behaviour.StartupTakes}
		h.Ready = h.Started
		if f := c.behaviour.FailsAfter; f > 0 && age >= f {
			h.Unhealthy, h.Grace = "Container "+c.Name+" failed liveness probe, will be restarted", c.behaviour.Grace
		}
		verdicts[c.ID] = h
	}
	return verdicts
}
