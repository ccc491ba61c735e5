// Package cert owns the node's two certificates: the one by which it is known to
// the API server, from a bootstrap kubeconfig through a signing request to a
// certificate that is renewed in time, and the one that it shows on its own
// port, from files, signed by itself, or by request. Both live where kubelet
// keeps them, under kubelet's names.
//
// It never approves a request, never throws away a credential that may still be
// of use, and never prints a private key. A certificate that has expired or a
// server that is away stops nothing that runs: what was there goes on being
// used, and State says what is wrong.
//
// Run of Client and of Serving blocks and is called once; it is the only writer
// of the files. All other methods may be called from any goroutine and do not
// block.
package cert
