// Package hostcheck owns the judgement whether a host can run nodeagent: which
// facts of it are wrong, how bad that is, where it comes from and what cures it.
//
// It is a function of values. It never looks at a host (internal/hostcheck/gather
// does), never changes one, and holds no state, so that anybody may call it from
// any goroutine: the check verb, the daemon at its start, and the runtime, which
// takes the lowest version of containerd from here.
package hostcheck
