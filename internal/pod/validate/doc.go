// Package validate owns the defaults and the rules that the API server applies
// to a Pod when one is created, as pure functions of the pod: a pod from a
// manifest file never passes an API server, so the node has to judge it itself.
//
// It demands what Kubernetes 1.36 demands with its default feature gates and
// with privileged containers allowed; test/oracle holds it to that, pod by pod.
// A field that is younger than this level is neither defaulted nor judged.
//
// It never reads a clock, a file or the node, it knows nothing of admission
// plugins, and it leaves the pod's status alone. What it reports may quote
// names, paths and numbers of the pod, quoted as Go strings, but never the value
// of an environment variable or a credential specification. Anybody may call it
// from any goroutine, as long as no two calls share a pod that one of them
// defaults.
package validate
