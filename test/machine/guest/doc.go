// Package guest owns the virtual machines of the tests: QEMU in software
// emulation, a Debian with systemd on cgroup v2, no network at all. It builds the
// guest's disk once and caches it by content, keeps a snapshot of the booted
// guest to start from, runs commands and test programs inside, and tells when a
// guest hung, with its console.
//
// It never touches the host's network, cgroups or mounts, and leaves nothing:
// QEMU ends with the process that started it, and what even SIGKILL of that
// process left (a directory of overlays) the next Start removes.
//
// A Guest's methods may be called from any goroutine; power is one goroutine's.
package guest
