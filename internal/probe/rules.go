package probe

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
)

// Kind says what a probe decides.
type Kind uint8

// The kinds of probes.
const (
	Startup Kind = iota
	Readiness
	Liveness
	kinds
)

// String is the kind in kubelet's events.
func (k Kind) String() string { return [...]string{"Startup", "Readiness", "Liveness"}[k] }

// of returns the container's probe of the kind, or nil.
func (k Kind) of(c *corev1.Container) *corev1.Probe {
	switch k {
	case Startup:
		return c.StartupProbe
	case Readiness:
		return c.ReadinessProbe
	default:
		return c.LivenessProbe
	}
}

// unjudged is the verdict on a run that no probe has looked at.
func unjudged(c *corev1.Container) pod.Health {
	return pod.Health{
		Started: c.StartupProbe == nil,
		Ready:   c.StartupProbe == nil && c.ReadinessProbe == nil,
	}
}

// active tells whether a probe of the kind runs under the verdict: startup holds
// up the others and ends with its first success; who wants the run ended is
// silent until there is a new one; of a pod on its way out only readiness is
// still asked.
func (k Kind) active(h pod.Health, leaving bool) bool {
	switch k {
	case Startup:
		return !h.Started && h.Unhealthy == "" && !leaving
	case Readiness:
		return h.Started
	default:
		return h.Started && h.Unhealthy == "" && !leaving
	}
}

// tally counts equal results in a row.
type tally struct {
	ok    bool
	inRow int32
}

func (t *tally) add(ok bool) int32 {
	if t.ok != ok {
		t.ok, t.inRow = ok, 0
	}
	t.inRow++
	return t.inRow
}

// reached tells whether so many results in a row change a verdict.
func reached(p *corev1.Probe, ok bool, inRow int32) bool {
	if ok {
		return inRow >= p.SuccessThreshold
	}
	return inRow >= p.FailureThreshold
}

// judge returns the verdict after a probe of c has reached its threshold.
func judge(h pod.Health, k Kind, ok bool, c *corev1.Container, policy corev1.RestartPolicy) pod.Health {
	switch {
	case k == Readiness:
		h.Ready = ok
	case ok && k == Startup:
		h.Started, h.Ready = true, c.ReadinessProbe == nil
	case !ok:
		h.Unhealthy = "Container " + c.Name + " failed " + lower(k) + " probe"
		if policy != corev1.RestartPolicyNever {
			h.Unhealthy += ", will be restarted"
		}
		h.Grace = k.of(c).TerminationGracePeriodSeconds
	}
	return h
}

func lower(k Kind) string { return [...]string{"startup", "readiness", "liveness"}[k] }

func period(p *corev1.Probe) time.Duration  { return seconds(max(p.PeriodSeconds, 1)) }
func timeout(p *corev1.Probe) time.Duration { return seconds(max(p.TimeoutSeconds, 1)) }
func seconds(n int32) time.Duration         { return time.Duration(n) * time.Second }

// firstWait is how long after now the first probe of a run is due that has been
// running for age. A run that an earlier daemon watched waits for a share of the
// period (0 to 1), so that a new daemon does not ask all at once.
//
// kubelet's first liveness probe comes somewhere within the first period, by the
// phase of a ticker that is older than the container; ours at its end.
func firstWait(k Kind, p *corev1.Probe, age time.Duration, adopted bool, share float64) time.Duration {
	age = max(age, 0) // the clock may have been set back
	delay := seconds(p.InitialDelaySeconds)
	if k == Liveness {
		delay = max(delay, period(p))
	}
	wait := max(delay-age, 0)
	if adopted {
		wait = max(wait, time.Duration(share*float64(period(p))))
	}
	return wait
}

// early tells whether a failure does not count: the startup probe asks once at
// the very start, to notice a quick one, but the container has a whole period
// for each failure that it is allowed.
func early(k Kind, p *corev1.Probe, age time.Duration) bool {
	return k == Startup && age < period(p)
}

// nextWait is how long after now a probe is due again that was due at due: one
// period later, but never to catch up on what was missed.
func nextWait(p *corev1.Probe, due, now time.Time) time.Duration {
	return max(period(p)-now.Sub(due), 0)
}
