// Package probe owns the startup, readiness and liveness probes of the node's
// containers: when each is due, what it found, and the verdict that follows
// (pod.Health).
//
// It never stops or starts a container and never writes a status: the pod's
// worker reads the verdict at each of its turns and is woken when it changes.
//
// One goroutine (Run) holds the times of all probes in a heap and starts those
// that are due within 10 ms of each other together; a probe has a goroutine only
// while it runs, and runs at most once at a time. Watch may be called from any
// goroutine and never blocks. Nobody is called with the lock held.
package probe
