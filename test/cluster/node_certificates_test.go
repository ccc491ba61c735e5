package cluster_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nodeagent/test/bed"
	"nodeagent/test/cluster"
)

// TestNodeCertificates is a node whose certificates the cluster signs: the client's is
// renewed by the one before, and the serving one, which a person approves, is what the
// API server asks for.
func TestNodeCertificates(t *testing.T) {
	n := newControlPlaneOf(t, func(b *bed.Bed) cluster.Options {
		return cluster.Options{APIServer: []string{"--kubelet-certificate-authority=" + filepath.Join(b.Dir(), "cluster", "pki", "ca.crt")}}
	})
	i := cluster.NodeIdentity("node")
	i.Lifetime = 5 * time.Minute // of an hour and five minutes: it is to be renewed
	file, err := n.c.Kubeconfig("node-short", i)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := kubeconfigPair(file)
	if err != nil {
		t.Fatal(err)
	}
	n.AgentProcess = bed.Agent(t, n.bed, bed.AgentOptions{
		Kubelet: n.authentication() + "rotateCertificates: true\nserverTLSBootstrap: true\n", Args: []string{"--kubeconfig", file},
	})
	n.kubectl("wait", "--for=create", "node/node", "--timeout=60s")
	n.registered()
	client := n.request(clientSigner, "")
	n.kubectl("wait", "--for=jsonpath={.status.certificate}", "csr/"+client.name, "--timeout=60s")
	if client.user != "system:node:node" || client.by != credential(pair.Certificate[0]) {
		t.Errorf("the renewal is asked for by %s with %s, want the certificate that is renewed", client.user, client.by)
	}
	renewed := n.pki("kubelet-client-current.pem", pair.Certificate[0])
	serving := n.serving(renewed)
	n.restart()
	if got := n.pki("kubelet-server-current.pem", nil); !got.Equal(serving) {
		t.Error("after a restart the node has another serving certificate")
	}
	if got := n.kubectl("logs", "speaks"); got != "a word\n" {
		t.Errorf("after a restart the log says %q", got)
	}
	if got := n.jsonpath("{.items[*].spec.signerName}", "csr"); strings.Count(got, servingSigner) != 1 || strings.Count(got, clientSigner) != 1 {
		t.Errorf("there are requests for %s", got)
	}
}

const (
	clientSigner  = "kubernetes.io/kube-apiserver-client-kubelet"
	servingSigner = "kubernetes.io/kubelet-serving"
)

// signingRequest is a CertificateSigningRequest: who made it, with what credential.
type signingRequest struct{ name, uid, user, by string }

// request waits for the node's request to a signer, other than the one of a UID.
func (n *node) request(signer, not string) signingRequest {
	n.t.Helper()
	path := `{range .items[?(@.spec.signerName=="` + signer + `")]}{.metadata.name} {.metadata.uid} {.spec.username} {.spec.extra.authentication\.kubernetes\.io/credential-id[0]}{"\n"}{end}`
	for deadline := time.Now().Add(time.Minute); ; {
		out := n.jsonpath(path, "csr")
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) == 4 && f[1] != not {
				return signingRequest{f[0], f[1], f[2], f[3]}
			}
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("of %s is asked %q", signer, out)
		}
	}
}

// credential is what the API server calls a client certificate.
func credential(der []byte) string {
	sum := sha256.Sum256(der)
	return "X509SHA256=" + hex.EncodeToString(sum[:])
}

// pki waits for a certificate in the node's directory of them, other than one.
func (n *node) pki(name string, not []byte) *x509.Certificate {
	n.t.Helper()
	file := filepath.Join(n.RootDir(), "pki", name)
	for deadline := time.Now().Add(time.Minute); ; {
		text, err := os.ReadFile(file)
		if block, _ := pem.Decode(text); block != nil && string(block.Bytes) != string(not) {
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				n.t.Fatal(err)
			}
			return cert
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("%s: %v", file, errors.Join(err, errors.New("no other certificate came")))
		}
	}
}

// serving: until somebody approves it, nobody gets a serving certificate; then it is
// one that the API server believes. A request that was taken away is made again, with
// the certificate that the node was given meanwhile.
func (n *node) serving(client *x509.Certificate) *x509.Certificate {
	n.apply(strings.Replace(sleeper("speaks", ""), `[/bin/sleep, "100000"]`, `[/bin/sh, -c, "echo a word; exec sleep 100000"]`, 1))
	n.kubectl("wait", ready, "pod/speaks", "--timeout=60s")
	first := n.request(servingSigner, "")
	if _, err := n.c.Kubectl(n.ctx, "logs", "speaks"); err == nil {
		n.t.Error("the API server asks a node that has no certificate")
	}
	n.kubectl("delete", "csr", first.name)
	again := n.request(servingSigner, first.uid)
	if again.user != "system:node:node" || again.by != credential(client.Raw) {
		n.t.Errorf("the serving certificate is asked for by %s with %s, want the renewed %s", again.user, again.by, credential(client.Raw))
	}
	n.kubectl("certificate", "approve", again.name)
	cert := n.pki("kubelet-server-current.pem", nil)
	if err := cert.VerifyHostname(bed.NodeIP); err != nil {
		n.t.Error(err)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		out, err := n.c.Kubectl(n.ctx, "logs", "speaks")
		if err == nil && out == "a word\n" {
			return cert
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("with its certificate the node says %q, %v", out, err)
		}
	}
}
