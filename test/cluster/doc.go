// Package cluster owns the real control plane that tests, benches and
// "make cluster" hold a node against: etcd, kube-apiserver,
// kube-controller-manager and kube-scheduler, built from their Go modules and
// run as processes of a bed, with certificates for everybody who talks to them;
// kubectl as the client; and, where one is asked for, kube-proxy and CoreDNS.
//
// It never listens outside the bed's network namespace, and it has no end of
// its own: it is gone, to the last process and file, when its bed is closed, or
// when the process that owns the bed dies.
//
// The methods of a Cluster may be called from any goroutine, those of one
// Component from one at a time.
package cluster
