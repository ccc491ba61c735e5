// Package status owns what the API server is told of this node's pods: their
// status, the mirror pods of static pods, the final delete of a pod that is gone,
// and events. Nothing else of the daemon writes any of these.
//
// It compares what the pod set tells with what the API server has, and writes the
// difference; both are levels, so that nothing is lost with a request, a watch or
// the daemon. It never starts or stops a pod, never reads the runtime, never keeps
// anything on a disk, and never writes to a pod but by its UID: one that was made
// anew under the same name is another pod.
//
// Offer, OfferStatic, NodeChanged, Untold and the methods of Events may be called from any
// goroutine and never block. Run owns all records, the goroutine that follows the
// pod set, and at most AtOnce goroutines with a request each. Pods that were handed
// over are never changed. Nobody is called with a lock held.
package status
