// Package spec owns the OCI runtime specification of a container: a pure
// function from the CRI vocabulary (sandbox config, container config) and the
// image's config to *specs.Spec.
//
// It is the security boundary of the node. What a pod or an image controls
// (names, paths, environment, user, working directory, volumes, labels,
// annotations) is hostile input here: it is checked, bounded or left out, and
// never copied into OCI annotations. It starts from a default of its own, not
// from containerd's.
//
// Build and ResolveUser read no file, no clock and no environment. What they
// need of the host comes from functions of their own that internal/cri calls
// before: ReadHost once; ReadAccounts and CheckRootfs once an image;
// LoadSeccomp, HostDevices, Devices and CheckPropagation for a container that
// needs them.
//
// It never talks to containerd, never mounts, never writes. All functions may
// be called from any goroutine; no returned spec shares memory with its input
// or with another spec.
package spec
