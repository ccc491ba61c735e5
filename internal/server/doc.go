// Package server owns what the daemon says of itself and of its pods: the node
// API on :10250 for the control plane, the local socket of the command line, the
// health endpoint on loopback, and the notices to the service manager.
//
// It shows state and changes none. The socket is of mode 0600 and below the run
// directory; the health port says one word and no detail to a stranger; the node
// API answers nobody whom the API server has not allowed to ask, and there is no
// second port beside it that does. It keeps no token and logs none.
//
// Each Run blocks until its context ends and owns its connections. All other
// methods may be called from any goroutine.
package server
