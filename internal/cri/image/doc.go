// Package image owns the node's images: pulling through containerd's transfer
// service, importing from archives, looking up by name or id, unpacking,
// removing and pruning.
//
// It never starts containers, never decides when to pull (that is the worker's,
// by pull policy) and never runs credential helper programs. Secrets are handed
// to containerd only and appear in no error, log or progress.
//
// All methods of Store may be called from any goroutine. Store has no goroutine
// of its own: each lives inside a call and ends with it.
package image
