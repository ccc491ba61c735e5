package workertest

import (
	"context"
	"errors"
	"maps"
	"time"

	"nodeagent/internal/pod"
	"nodeagent/internal/probe"
)

// Probe implements probe.Prober: a container answers by its behaviour and its
// age, whatever daemon asks.
func (d *Daemon) Probe(_ context.Context, t *probe.Target) probe.Outcome {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	c := d.w.containers[t.Container]
	if d.dead.Load() || c == nil || c.State != pod.ContainerRunning {
		return probe.Outcome{Err: errors.New("no such container runs")}
	}
	age, ok := time.Since(c.Started), true
	switch t.Probe {
	case t.Spec.StartupProbe:
		ok = age >= c.behaviour.StartupTakes
	case t.Spec.LivenessProbe:
		ok = c.behaviour.FailsAfter == 0 || age < c.behaviour.FailsAfter
	}
	if !ok {
		return probe.Outcome{Result: probe.Failure}
	}
	return probe.Outcome{Result: probe.Success}
}

// Load implements probe.Records: verdicts outlive the daemon.
func (d *Daemon) Load() (map[string]pod.Health, error) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	return maps.Clone(d.w.verdicts), nil
}

// Save implements probe.Records.
func (d *Daemon) Save(container string, h pod.Health) error {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if d.dead.Load() {
		return errDead
	}
	before := d.w.verdicts[container]
	if before.Started && !h.Started || before.Unhealthy != "" && h.Unhealthy == "" {
		d.w.breaks("the verdict on %s went back from %+v to %+v", container, before, h)
	}
	d.w.verdicts[container] = h
	return nil
}

// Remove implements probe.Records.
func (v Verdicts) Remove(container string) error {
	v.w.mu.Lock()
	defer v.w.mu.Unlock()
	if v.dead.Load() {
		return errDead
	}
	if c := v.w.containers[container]; c != nil && c.State == pod.ContainerRunning {
		v.w.breaks("the verdict on the running %s is forgotten", container)
	}
	delete(v.w.verdicts, container)
	return nil
}

// Verdicts are the daemon's records of probes: worker.Dirs has a Remove too.
type Verdicts struct{ *Daemon }

// Runs tells whether the container runs, for probe.Set.Stray.
func (d *Daemon) Runs(container string) bool {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	c := d.w.containers[container]
	return c != nil && c.State == pod.ContainerRunning
}

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
