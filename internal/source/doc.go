// Package source owns where pods come from: it reads what an operator wants of
// the node and hands it over as full snapshots. Here is the manifest directory
// (or single manifest file) of static pods.
//
// It never starts, stops or remembers a pod: it says what is wanted now, and the
// pod set decides what follows. It never writes a file. A manifest is trusted as
// its writer (root) is, but not to be well made: whatever stands in the
// directory, reading it is bounded in time and memory and never ends a pod. Only
// the absence of a file ends its pods.
//
// A Manifests value belongs to the goroutine that calls Run; Emit is called from
// that goroutine alone. A Snapshot and the pods in it are never changed after
// they were handed over and may be shared.
package source
