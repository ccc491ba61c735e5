// Package cri owns the container runtime of the node, in the vocabulary of
// CRI, over containerd's native client: sandboxes without a pause container,
// containers, their exits, exec, and the adoption of all of it at start.
//
// Truth is containerd's records with our labels, the shim's exit records and
// the kernel; what Native keeps in memory is a picture of that, made at start
// and kept by events, and by a relist where an event was lost. Everything in
// the run directory is a cache or dies with the boot.
//
// It never decides what should run, never restarts anything, never writes
// cgroupfs and never reads a pod's spec. It never touches containerd records
// without its labels.
//
// All methods of Native may be called from any goroutine; those on one sandbox
// or container wait for each other, those on different ones do not. Native.Run
// owns every background goroutine and ends them all.
package cri
