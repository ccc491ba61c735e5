// Package validate owns the defaults and the rules that the API server applies
// to a Pod when one is created, as pure functions of the pod: a pod from a
// manifest file never passes an API server, so the node has to judge it itself.
//
// It never reads a clock, a file or the node, and it knows nothing of admission
// plugins. What it demands is the level of Kubernetes 1.36 (default feature
// gates); a field that is younger than that level is left alone. Every function
// is safe for concurrent use as long as the pods are different ones.
package validate
