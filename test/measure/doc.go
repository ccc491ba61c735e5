// Package measure owns how the benches read what a process costs and what
// containerd does, and how they say it: "make bench" holds the daemon against
// containerd and runc alone, "make bench-cluster" against kubelet, and their figures
// mean the same.
//
// It starts nothing, ends only a bench's own process (Main), and judges nothing. A Recorder may be used from any
// goroutine; it has one of its own, which ends with the context that it was made with.
package measure
