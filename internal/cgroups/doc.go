// Package cgroups owns the node's cgroups: kubepods, its QoS classes and one
// cgroup for each pod, on cgroup v1, v2 and the hybrid of both, with the
// cgroupfs and the systemd driver. It writes their limits, puts back what
// somebody else changed, kills and removes what is in them, and reads what the
// kernel really has.
//
// It never makes a container's cgroup: the OCI runtime does, below the pod's,
// at the path that ContainerPath names. It decides nothing: the limits come as
// pod.Resources. Nothing outside of Config.Root is changed, except that on v2
// the controllers are enabled on the way down to it.
//
// A Tree may be used by any number of goroutines. Calls for one pod must not
// overlap, which the pod's worker sees to; only RestoreLimits may run beside
// anything. No call holds a lock that another pod's call waits for while it
// waits for a process to end.
package cgroups
