// Package image owns the node's images: pulling through containerd's transfer
// service, importing from archives, looking up by name or id, unpacking,
// reading their root file system, removing and pruning.
//
// It never starts containers, never decides when to pull (that is the worker's,
// by pull policy) and never runs credential helper programs. Secrets are handed
// to containerd only and appear in no error, log or progress.
//
// All methods of Store may be called from any goroutine. A pull runs in a
// goroutine that all its callers share; it ends before the last of them
// returns.
package image
