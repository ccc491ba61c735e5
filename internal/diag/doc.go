// Package diag owns what the command line shows of a node: pods and containers
// joined from the daemon, containerd, the manifests, log files and the kernel;
// the comparison of what a container was given with what was asked for; and the
// escaping of everything that a pod can influence.
//
// It only reads, and works with the daemon dead. It never starts, stops or
// repairs anything, and nothing of the daemon imports it.
//
// Functions and values belong to the goroutine that calls them; where one starts
// a goroutine, the context that it was given ends it.
package diag
