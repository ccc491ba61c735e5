package cluster

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Identity is somebody whom the API server knows by a client certificate.
type Identity struct {
	Name   string
	Groups []string
	// Lifetime is how long the certificate is valid; default: a day. One below
	// zero makes a certificate that has expired.
	Lifetime time.Duration
}

func (i Identity) lifetime() time.Duration {
	if i.Lifetime == 0 {
		return day
	}
	return i.Lifetime
}

// NodeIdentity is that of a node's agent: the node authorizer and the
// NodeRestriction plugin go by it.
func NodeIdentity(node string) Identity {
	return Identity{Name: "system:node:" + node, Groups: []string{"system:nodes"}}
}

// Admin is the file by which a client may do anything.
func (c *Cluster) Admin() string { return filepath.Join(c.dir, "admin.kubeconfig") }

// Node writes the kubeconfig of a node's agent and returns its path.
func (c *Cluster) Node(name string) (string, error) {
	return c.Kubeconfig("node-"+name, NodeIdentity(name))
}

// Kubeconfig writes NAME.kubeconfig with a new certificate of an identity and
// returns its path.
func (c *Cluster) Kubeconfig(name string, i Identity) (string, error) {
	p, err := c.ca.client(i)
	if err != nil {
		return "", err
	}
	return c.writeKubeconfig(name, fmt.Sprintf("client-certificate-data: %s\n    client-key-data: %s",
		base64.StdEncoding.EncodeToString(p.cert), base64.StdEncoding.EncodeToString(p.key)))
}

// Bootstrap writes the kubeconfig by which a node that has no certificate yet
// may ask for one, and returns its path.
func (c *Cluster) Bootstrap() (string, error) {
	return c.writeKubeconfig("bootstrap", "token: "+c.Token())
}

// Token is the bootstrap token.
func (c *Cluster) Token() string { return c.tokenID + "." + c.tokenSecret }

// CA is the file of the authority that signs servers' and clients' certificates:
// clientCAFile of a node.
func (c *Cluster) CA() string { return filepath.Join(c.pki(), "ca.crt") }

func (c *Cluster) writeKubeconfig(name, credentials string) (string, error) {
	path := filepath.Join(c.dir, name+".kubeconfig")
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: bed
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: %[3]q
  user:
    %[4]s
contexts:
- name: bed
  context: {cluster: bed, user: %[3]q}
current-context: bed
`, c.Server(), base64.StdEncoding.EncodeToString(c.ca.pem), name, credentials)
	return path, os.WriteFile(path, []byte(text), 0o600)
}
