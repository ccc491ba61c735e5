package cluster_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
	"nodeagent/test/cluster"
)

// limit bounds a whole test, and with it the building of what it runs, which is
// minutes when the cache has nothing.
const limit = 40 * time.Minute

// TestControlPlane brings the control plane up beside a containerd, has kubectl,
// the scheduler and the controllers at work, takes the API server away and back,
// and proves that nothing is left when the bed is closed.
func TestControlPlane(t *testing.T) {
	need.Have(t, need.Root)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	b := bed.Containerd(t, bed.Options{Stock: true})
	c := cluster.Up(t, b, cluster.Options{Talk: os.Stderr})
	t.Run("versions", func(t *testing.T) { versions(t, ctx, c) })
	t.Run("pending", func(t *testing.T) { pending(t, ctx, c) })
	t.Run("node", func(t *testing.T) { nodeRights(t, ctx, c) })
	t.Run("bootstrap", func(t *testing.T) { bootstrap(t, ctx, c) })
	t.Run("expired", func(t *testing.T) { expired(t, ctx, c) })
	t.Run("away", func(t *testing.T) { away(t, ctx, c) })
	if _, err := b.Run(ctx, "ctr", "-a", b.Address(), "version"); err != nil {
		t.Errorf("containerd beside the control plane: %v", err)
	}
	gone(t, b)
}

func versions(t *testing.T, ctx context.Context, c *cluster.Cluster) {
	out := kubectl(t, ctx, c, "version")
	for _, want := range []string{"Client Version: v", "Server Version: v"} {
		if !strings.Contains(out, want+cluster.KubernetesVersion+"\n") {
			t.Errorf("kubectl version says %q, want %s%s", out, want, cluster.KubernetesVersion)
		}
	}
	out = kubectl(t, ctx, c, "get", "namespaces", "-o", "name")
	for _, want := range []string{"namespace/default\n", "namespace/kube-system\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("kubectl get namespaces says %q, want %q among them", out, want)
		}
	}
}

// pending proves that the scheduler looks at pods, by its own words.
func pending(t *testing.T, ctx context.Context, c *cluster.Cluster) {
	kubectl(t, ctx, c, "run", "nowhere", "--image=localhost/none:v1")
	kubectl(t, ctx, c, "wait", "--for=condition=PodScheduled=False", "pod/nowhere", "--timeout=60s")
	out := kubectl(t, ctx, c, "get", "pod", "nowhere", "-o", `jsonpath={.status.phase}: {.status.conditions[?(@.type=="PodScheduled")].message}`)
	if !strings.HasPrefix(out, "Pending: ") || !strings.Contains(out, "no nodes available to schedule pods") {
		t.Errorf("a pod without a node is %q, want it Pending with the scheduler's words", out)
	}
}

// nodeRights proves that a node is somebody who may touch what is its own only.
func nodeRights(t *testing.T, ctx context.Context, c *cluster.Cluster) {
	file, err := c.Node("node")
	if err != nil {
		t.Fatal(err)
	}
	as := "--kubeconfig=" + file
	if out := kubectl(t, ctx, c, as, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"); out != "system:node:node" {
		t.Errorf("the node's kubeconfig is of %q", out)
	}
	create := func(name string) error {
		cmd := c.Command(as, "create", "-f", "-")
		cmd.Stdin = strings.NewReader(`{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "` + name + `"}}`)
		_, err := c.Finish(ctx, cmd)
		return err
	}
	if err := create("node"); err != nil {
		t.Errorf("a node cannot register itself: %v", err)
	}
	refused(t, create("other"), `node "node" is not allowed to modify node "other"`)
	kubectl(t, ctx, c, "create", "secret", "generic", "canary", "--from-literal=a=b")
	_, err = c.Kubectl(ctx, as, "get", "secret", "canary")
	refused(t, err, "no relationship found between node 'node' and this object")
	if out := kubectl(t, ctx, c, "get", "node", "node", "-o", "name"); out != "node/node\n" {
		t.Errorf("the node is %q", out)
	}
	kubectl(t, ctx, c, "delete", "node", "node")
}

// bootstrap proves the road from a bootstrap token to a node's certificate.
func bootstrap(t *testing.T, ctx context.Context, c *cluster.Cluster) {
	file, err := c.Bootstrap()
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "system:node:young", Organization: []string{"system:nodes"}},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	request := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	cmd := c.Command("--kubeconfig="+file, "create", "-f", "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: young}
spec:
  request: %s
  signerName: kubernetes.io/kube-apiserver-client-kubelet
  usages: [digital signature, client auth]
`, base64.StdEncoding.EncodeToString(request)))
	if _, err := c.Finish(ctx, cmd); err != nil {
		t.Fatal(err)
	}
	kubectl(t, ctx, c, "wait", "--for=jsonpath={.status.certificate}", "csr/young", "--timeout=60s")
	out := kubectl(t, ctx, c, "get", "csr", "young", "-o", "jsonpath={.status.certificate}")
	text, _ := base64.StdEncoding.DecodeString(out)
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("the signed certificate is %q", out)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || cert.Subject.CommonName != "system:node:young" {
		t.Errorf("the certificate is of %v, %v", cert.Subject, err)
	}
}

func expired(t *testing.T, ctx context.Context, c *cluster.Cluster) {
	i := cluster.NodeIdentity("late")
	i.Lifetime = -time.Minute
	file, err := c.Kubeconfig("late", i)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Kubectl(ctx, "--kubeconfig="+file, "auth", "whoami")
	refused(t, err, "logged in") // "You must be logged in to the server"
}

// away takes the API server away as a node will see it: refused, hanging, back.
func away(t *testing.T, ctx context.Context, c *cluster.Cluster) {
	if err := c.APIServer.Kill(); err != nil {
		t.Fatal(err)
	}
	_, err := c.Kubectl(ctx, "get", "namespaces")
	refused(t, err, "refused")
	if err := c.APIServer.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if out := kubectl(t, ctx, c, "get", "pods", "-o", "name"); out != "pod/nowhere\n" {
		t.Errorf("after the API server came back the pods are %q, want those of before", out)
	}
	if err := c.APIServer.Stop(); err != nil {
		t.Fatal(err)
	}
	_, err = c.Kubectl(ctx, "get", "namespaces", "--request-timeout=300ms")
	refused(t, err, "imeout")
	if err := c.APIServer.Cont(); err != nil {
		t.Fatal(err)
	}
	kubectl(t, ctx, c, "get", "namespaces")
}

// gone closes the bed and looks for what is left.
func gone(t *testing.T, b *bed.Bed) {
	t.Helper()
	dir := b.Dir()
	if procs := running(t, dir); len(procs) < 5 {
		t.Errorf("the bed runs %q, want containerd and the four of the control plane", procs)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if procs := running(t, dir); len(procs) > 0 {
		t.Errorf("still running: %q", procs)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}

// TestKubeProxy has kube-proxy make the API server's service address work, by
// either kind of rules.
func TestKubeProxy(t *testing.T) {
	need.Have(t, need.Root)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	b := bed.Containerd(t, bed.Options{Stock: true})
	c := cluster.Up(t, b, cluster.Options{Talk: os.Stderr})
	if err := c.Apply(ctx, `
apiVersion: v1
kind: Node
metadata: {name: node}
status: {addresses: [{type: InternalIP, address: `+bed.NodeIP+`}]}
`); err != nil {
		t.Fatal(err)
	}
	service := kubectl(t, ctx, c, "get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}")
	for _, mode := range []string{"nftables", "iptables"} {
		t.Run(mode, func(t *testing.T) { serviceAnswers(t, ctx, b, c, mode, service) })
	}
}

func serviceAnswers(t *testing.T, ctx context.Context, b *bed.Bed, c *cluster.Cluster, mode, service string) {
	proxy, err := c.KubeProxy(ctx, "node", mode)
	if err != nil {
		t.Fatal(err)
	}
	// Nothing tells when the first rules are in the kernel.
	for {
		try, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		conn, err := b.Connect(try, "tcp", net.JoinHostPort(service, "443"))
		cancel()
		if err == nil {
			conn.Close()
			break
		}
		select {
		case <-proxy.Exited():
			t.Fatalf("kube-proxy ended: %v\n%s", proxy.Err(), proxy.LogTail(30))
		case <-ctx.Done():
			t.Fatalf("%s:443 never answered: %v\n%s", service, err, proxy.LogTail(30))
		default:
		}
	}
	if _, err := c.Kubectl(ctx, "--server=https://"+service, "get", "--raw", "/readyz"); err != nil {
		t.Error(err)
	}
	if err := proxy.Kill(); err != nil {
		t.Error(err)
	}
	if _, err := b.Run(ctx, "nft", "flush", "ruleset"); err != nil {
		t.Error(err)
	}
}

// TestCoreDNS has CoreDNS answer for the API server's name.
func TestCoreDNS(t *testing.T) {
	need.Have(t, need.Root)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	b := bed.Containerd(t, bed.Options{Stock: true})
	c := cluster.Up(t, b, cluster.Options{Talk: os.Stderr})
	if _, err := c.CoreDNS(ctx); err != nil {
		t.Fatal(err)
	}
	r := c.Resolver()
	addrs, err := r.LookupHost(ctx, "kubernetes.default.svc."+cluster.Domain+".")
	want := kubectl(t, ctx, c, "get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}")
	if err != nil || len(addrs) != 1 || addrs[0] != want {
		t.Errorf("the API server's name has the addresses %q, %v; want %s", addrs, err, want)
	}
	if names, err := r.LookupAddr(ctx, want); err != nil || !slices.Contains(names, "kubernetes.default.svc."+cluster.Domain+".") {
		t.Errorf("the API server's address has the names %q, %v", names, err)
	}
	if addrs, err := r.LookupHost(ctx, "example.com."); err == nil {
		t.Errorf("a name of the outside has the addresses %q", addrs)
	}
	newName(t, ctx, c, r)
}

// newName has CoreDNS know a Service that comes and goes while it runs.
func newName(t *testing.T, ctx context.Context, c *cluster.Cluster, r *net.Resolver) {
	const name = "words.default.svc." + cluster.Domain + "."
	kubectl(t, ctx, c, "create", "service", "clusterip", "words", "--tcp=80:80")
	want := kubectl(t, ctx, c, "get", "service", "words", "-o", "jsonpath={.spec.clusterIP}")
	for _, there := range []bool{true, false} {
		// Nothing tells when CoreDNS has heard of it.
		for deadline := time.Now().Add(time.Minute); ; {
			addrs, err := r.LookupHost(ctx, name)
			if there && err == nil && slices.Equal(addrs, []string{want}) || !there && err != nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s has the addresses %q, %v; want it there: %t, at %s", name, addrs, err, there, want)
			}
		}
		if there {
			kubectl(t, ctx, c, "delete", "service", "words")
		}
	}
}

func kubectl(t *testing.T, ctx context.Context, c *cluster.Cluster, args ...string) string {
	t.Helper()
	out, err := c.Kubectl(ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// refused wants an error with words in it.
func refused(t *testing.T, err error, words string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("want an error that says %q, got %v", words, err)
	}
}
