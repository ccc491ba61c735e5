package cert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net"
	"slices"
	"strings"

	certsv1 "k8s.io/api/certificates/v1"
)

// Names are what a serving certificate is good for.
type Names struct {
	DNS []string
	IPs []net.IP
}

// sorted returns the names in an order of their own, each once. A name that is
// an address, as that of a node may be, is one.
func (n Names) sorted() Names {
	var dns []string
	all := slices.Clone(n.IPs)
	for _, name := range n.DNS {
		if ip := net.ParseIP(name); ip != nil {
			all = append(all, ip)
		} else if name != "" {
			dns = append(dns, name)
		}
	}
	slices.Sort(dns)
	var ips []net.IP
	for _, ip := range all {
		if !hasIP(ips, ip) {
			ips = append(ips, ip)
		}
	}
	slices.SortFunc(ips, func(a, b net.IP) int { return slices.Compare(a.To16(), b.To16()) })
	return Names{slices.Compact(dns), ips}
}

// String is the same for the same names.
func (n Names) String() string {
	parts := slices.Clone(n.DNS)
	for _, ip := range n.IPs {
		parts = append(parts, ip.String())
	}
	return strings.Join(parts, ",")
}

// order is what the cluster is asked to sign.
type order struct {
	signer string
	usage  certsv1.KeyUsage
	node   string
	names  Names
}

// subject is how the API server knows a node.
func subject(node string) pkix.Name {
	return pkix.Name{Organization: []string{"system:nodes"}, CommonName: "system:node:" + node}
}

// usages depend on the key: only an RSA key can encipher another.
func (o order) usages(key crypto.Signer) []certsv1.KeyUsage {
	all := []certsv1.KeyUsage{certsv1.UsageDigitalSignature, o.usage}
	if _, ok := key.(*rsa.PrivateKey); ok {
		all = append(all, certsv1.UsageKeyEncipherment)
	}
	return all
}

// request is the signing request of key, signed by it, as PEM.
func (o order) request(key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: subject(o.node), DNSNames: o.names.DNS, IPAddresses: o.names.IPs,
	}, key)
	if err != nil {
		return nil, fmt.Errorf("make signing request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// id is the object name of the request: the same for the same key and order, so
// that after a kill the request is found again, whoever had made it.
func (o order) id(key crypto.Signer) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", fmt.Errorf("name signing request: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(der, "\n%s\n%s\n%s\n%s", o.signer, o.usage, o.node, o.names))
	return "node-csr-" + hex.EncodeToString(sum[:]), nil
}

// fits says why a signed certificate is not what was ordered, or "".
func (o order) fits(p *pair) string {
	switch leaf := p.leaf(); {
	case leaf.Subject.CommonName != subject(o.node).CommonName:
		return fmt.Sprintf("it is for %q", leaf.Subject.CommonName)
	case !p.covers(o.names):
		return "it lacks some of the names " + o.names.String()
	case !leaf.NotAfter.After(leaf.NotBefore):
		return "it is never valid"
	}
	return ""
}

// samePublic tells whether a signing request is for our key.
func samePublic(requestPEM []byte, key crypto.Signer) bool {
	block, _ := pem.Decode(requestPEM)
	if block == nil {
		return false
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return false
	}
	switch pub := key.Public().(type) {
	case *ecdsa.PublicKey:
		return pub.Equal(r.PublicKey)
	case *rsa.PublicKey:
		return pub.Equal(r.PublicKey)
	}
	return false
}
