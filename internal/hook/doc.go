// Package hook runs the lifecycle hooks of containers: exec, httpGet and sleep, as
// kubelet's pkg/kubelet/lifecycle does. It decides nothing: when a hook is due, for how
// long it may take and what its failure means is the pod's plan.
//
// Nothing that a hook says is kept: its output, the body of an answer and the addresses
// and headers of a request may hold secrets, and what it returns ends up in logs and
// statuses. Run may be called from any goroutine; it starts none that outlives it, and
// it ends when its context does.
package hook
