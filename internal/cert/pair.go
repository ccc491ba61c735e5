package cert

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"time"
)

// pair is a certificate with its private key. It is never changed.
type pair struct {
	tls       tls.Certificate
	cert, key []byte // PEM
}

// String keeps the key out of whatever prints a pair.
func (p *pair) String() string {
	if p == nil {
		return "no certificate"
	}
	return "certificate of " + p.leaf().Subject.String()
}

// GoString does so for %#v.
func (p *pair) GoString() string { return p.String() }

func (p *pair) leaf() *x509.Certificate { return p.tls.Leaf }

// expired tells whether nobody with our clock takes it any more.
func (p *pair) expired(now time.Time) bool { return now.After(p.leaf().NotAfter) }

// covers tells whether the certificate is good for every name.
func (p *pair) covers(n Names) bool {
	for _, dns := range n.DNS {
		if p.leaf().VerifyHostname(dns) != nil {
			return false
		}
	}
	for _, ip := range n.IPs {
		if !hasIP(p.leaf().IPAddresses, ip) {
			return false
		}
	}
	return true
}

func hasIP(all []net.IP, ip net.IP) bool {
	for _, one := range all {
		if one.Equal(ip) {
			return true
		}
	}
	return false
}

// parsePair returns the certificate and key of two PEM texts, which may be the
// same one. Its errors hold nothing of them.
func parsePair(cert, key []byte) (*pair, error) {
	c, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	if c.Leaf == nil {
		if c.Leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
			return nil, err
		}
	}
	return &pair{tls: c, cert: blocks(cert, true), key: blocks(key, false)}, nil
}

// blocks takes the certificates, or the rest, out of a PEM text.
func blocks(text []byte, certificates bool) []byte {
	var out bytes.Buffer
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if (block.Type == "CERTIFICATE") == certificates {
			_ = pem.Encode(&out, &pem.Block{Type: block.Type, Bytes: block.Bytes}) // a buffer takes all
		}
	}
	return out.Bytes()
}

// newKey makes a private key, as kubelet does: P-256, in SEC 1 form.
func newKey() (crypto.Signer, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make private key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("make private key: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// parseKey reads a private key of any usual form. Its errors hold nothing of it.
func parseKey(text []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if k, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
			return k, nil
		}
		if k, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
			return k, nil
		}
		if k, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			if s, ok := k.(crypto.Signer); ok {
				return s, nil
			}
		}
	}
	return nil, errors.New("no private key in it")
}
