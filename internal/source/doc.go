// Package source owns where pods come from: it reads what an operator wants of
// the node and hands it over as full snapshots. Manifests reads the manifest
// directory (or single manifest file) of static pods; URL reads them from a server; API follows the pods that an
// API server has bound to the node, and keeps the last of them for a start without it.
//
// It never starts, stops or remembers a pod: it says what is wanted now, and the
// pod set decides what follows. It never writes to the API server, nor any file but
// its cache of that server's pods. A manifest is trusted as
// its writer (root) is, but not to be well made: whatever stands in the
// directory, reading it is bounded in time and memory and never ends a pod. Only
// the absence of a file ends its pods.
//
// The API server is trusted, but not to be there, nor to be right at once: a list
// that would end most pods is believed when it is said twice.
//
// A Manifests or API value belongs to the goroutine that calls Run; Emit is called from
// that goroutine alone. A Snapshot and the pods in it are never changed after
// they were handed over and may be shared.
package source
