// Package shutdown owns how pods end before the machine does: it holds up the
// machine's shutdown, ends the pods group by group with the time that each group has,
// and lets the machine go. The groups, times and words are kubelet's.
//
// It never stops a container itself: it tells the pod set which pods are to end, and
// waits until that says that nothing of them runs and their volumes are gone. It keeps
// nothing on disk: a daemon that starts while the machine shuts down asks and goes on.
//
// Run belongs to one goroutine, which owns one more while pods end; all other methods
// may be called from any.
package shutdown
