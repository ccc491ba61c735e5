// Package node owns what the API server knows of this node: its Node object
// (registration, labels, addresses, capacity, conditions) and its lease.
//
// It starts, stops and judges no pod: what it says of the node it is told by
// others, through Facts and Conditions, and it hands on what the API says of the
// node (the pods' address ranges, labels, taints). It never reads another node's
// objects, never changes a spec that exists, and never deletes anything. Nothing
// waits for it: without an API server the node goes on as it is.
//
// Run owns three goroutines, so that none holds up another: one decides and
// writes the Node, one follows it, one renews the lease. Wake, Seen and Show may be called
// from any goroutine and never block. Facts, Conditions, PodCIDRs, Changed and
// Event are called from the goroutine that writes, with no lock held.
package node
