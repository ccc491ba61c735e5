// Package bed owns the private node that tests, benches and "make run" use: a
// containerd of its own with root, state, socket and shim sockets of its own, in
// a network namespace without an uplink, below a cgroup of its own; the
// agent as a process inside it; and the oracle that tells what was left behind.
//
// It never touches a process, mount, cgroup or namespace that it did not make,
// and never sends a packet out of the host: its namespace has one bridge with
// the node address 192.0.2.10 and a default route to that bridge.
//
// Whatever ends the process that owns a bed (a panic, a timeout, SIGKILL), a
// reaper process notices by a closed pipe and removes the bed; what even that
// could not do, the next Start sweeps.
//
// A Bed's methods may be called from any goroutine.
package bed
