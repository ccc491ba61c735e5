// Package server owns what the daemon says of itself: the local socket of the
// command line, the health endpoint on loopback, and the notices to the service
// manager.
//
// It shows state and changes none. The socket is of mode 0600 and below the run
// directory; nothing else listens but the health port, which says one word and
// no detail to a stranger. Each Run blocks until its context ends.
package server
