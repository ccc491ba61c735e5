// Package failpoint owns the named places at which a test may make the daemon
// fail, stall or die: before and after each external call and each durable
// write of a pod's start and stop.
//
// Without the build tag "failpoints" every place is an empty function that the
// compiler removes. With it, NODEAGENT_FAILPOINTS holds terms of the form
//
//	name=[N*]action(arg)[->[N*]action(arg)…][;name=…]
//
// with the actions off, error(text), panic(text), delay(duration) and kill
// (SIGKILL of the own process). A term acts N times (without N: for ever), then
// the next one takes over. NODEAGENT_FAILPOINTS_VISITED names a file to which
// each place is appended when it is first passed.
//
// It never imports another package of this module. At may be called from any
// goroutine.
package failpoint
