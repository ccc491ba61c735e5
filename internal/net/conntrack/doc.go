// Package conntrack owns what the node's proxy has to do with the kernel's table
// of connections: its sizes and timeouts, and the entries of UDP flows that lead
// to endpoints which are no more.
//
// It decides neither (the operator and net.Flows do), removes no entry of TCP or
// of anything that is not an address of a service, and starts no goroutine. A
// Table has one user at a time.
package conntrack
