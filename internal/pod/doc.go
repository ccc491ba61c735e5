// Package pod owns what a pod is to this node: its identity, what the sources
// want of it (Desired), what the runtime and the kernel show of it (Observed),
// and every decision that follows from the two: Plan, Status, Admit, QoS,
// oom_score_adj, back-off.
//
// It is pure: no clock, no I/O, no goroutine; time comes in as a value. Nothing
// here changes its arguments, so values may be shared between goroutines as
// long as nobody else changes them.
package pod
