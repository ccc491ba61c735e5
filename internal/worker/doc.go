// Package worker owns the pod set of the node: which pods there are, one
// goroutine for each, and the operations in flight for it.
//
// A worker takes the latest wish (a mailbox of one), reads what the runtime
// shows, asks pod.Plan for the steps that may run now, and runs each in a
// goroutine of its own with a deadline, so that one stuck call is one stuck
// pod. It never decides anything itself and never touches the world but through
// the small interfaces of this package.
//
// Set.Offer and Set.Wake may be called from any goroutine and never block;
// Set.Run owns everything else.
package worker
