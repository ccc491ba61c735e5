package cluster

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"

	"nodeagent/test/bed"
)

// make makes directories, keys, certificates and kubeconfigs.
func (c *Cluster) make() error {
	for _, d := range []string{c.dir, c.pki(), c.logs(), filepath.Join(c.dir, "home")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	c.tokenID, c.tokenSecret = lower(6), lower(16)
	if err := c.makeServing(); err != nil {
		return err
	}
	if err := c.makeClients(); err != nil {
		return err
	}
	var err error
	c.http, err = c.newHTTP()
	return err
}

// lower is a random word of lower case letters and digits.
func lower(n int) string { return strings.ToLower(rand.Text()[:n]) }

// makeServing makes the authorities and what servers prove themselves with.
func (c *Cluster) makeServing() error {
	var err error
	if c.ca, err = newAuthority("kubernetes"); err != nil {
		return err
	}
	if err := c.ca.write(c.pki(), "ca"); err != nil {
		return err
	}
	if err := writeKey(c.pki(), "sa"); err != nil {
		return err
	}
	names := []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + Domain, "localhost"}
	p, err := c.ca.server("kube-apiserver", append(names, bed.NodeIP, "127.0.0.1", "10.96.0.1")...)
	if err != nil {
		return err
	}
	if err := p.write(c.pki(), "apiserver"); err != nil {
		return err
	}
	if p, err = c.ca.server("health", "127.0.0.1"); err != nil {
		return err
	}
	return p.write(c.pki(), "health")
}

// Those who talk to the API server, and as whom it talks to others.
var (
	admin      = Identity{Name: "kubernetes-admin", Groups: []string{"system:masters"}}
	manager    = Identity{Name: "system:kube-controller-manager"}
	scheduler  = Identity{Name: "system:kube-scheduler"}
	toNodes    = Identity{Name: "kube-apiserver-kubelet-client"}
	frontProxy = Identity{Name: "front-proxy-client"}
)

// makeClients makes what clients prove themselves with.
func (c *Cluster) makeClients() error {
	for name, i := range map[string]Identity{"admin": admin, "kube-controller-manager": manager, "kube-scheduler": scheduler} {
		if _, err := c.Kubeconfig(name, i); err != nil {
			return err
		}
	}
	p, err := c.ca.client(toNodes)
	if err != nil {
		return err
	}
	if err := p.write(c.pki(), "kubelet-client"); err != nil {
		return err
	}
	// An authority of its own: whoever has a certificate of it may say in
	// whose name it speaks.
	front, err := newAuthority("front-proxy")
	if err != nil {
		return err
	}
	if err := front.write(c.pki(), "front-proxy-ca"); err != nil {
		return err
	}
	if p, err = front.client(frontProxy); err != nil {
		return err
	}
	return p.write(c.pki(), "front-proxy")
}
