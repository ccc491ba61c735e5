// Package oracle holds nodeagent's defaults and rules for pods against those of
// the API server and kubelet themselves. It is a module of its own, so that
// k8s.io/kubernetes never gets near the product, and it imports nothing of the
// product either: it builds the tests of internal/pod/validate, which answer
// over a pipe with the versions of the Kubernetes modules that the product uses.
package oracle
