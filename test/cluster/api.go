package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// newHTTP is a client inside the bed that proves itself as an administrator.
func (c *Cluster) newHTTP() (*http.Client, error) {
	p, err := c.ca.client(admin)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(p.cert, p.key)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(c.ca.cert)
	return &http.Client{Transport: &http.Transport{
		DialContext: c.bed.Connect,
		// No connection outlives its request, so that none keeps a killed
		// server's place or a goroutine of a closed bed.
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}},
	}}, nil
}

// get asks for a URL and wants a 200.
func (c *Cluster) get(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	_, err := c.do(ctx, http.MethodGet, url, nil)
	return err
}

// create makes an object of the API; one that is there already is left as it is.
func (c *Cluster) create(ctx context.Context, path string, object any) error {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	code, err := c.do(ctx, http.MethodPost, c.Server()+path, body)
	if code == http.StatusConflict {
		return nil
	}
	return err
}

func (c *Cluster) do(ctx context.Context, method, url string, body []byte) (int, error) {
	resp, err := c.send(ctx, method, url, body)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode/100 != 2 {
		return resp.StatusCode, fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, bytes.TrimSpace(text))
	}
	return resp.StatusCode, err
}

func (c *Cluster) send(ctx context.Context, method, url string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	return c.http.Do(req)
}

// appears waits until a collection has an object of a name, by a watch.
func (c *Cluster) appears(ctx context.Context, collection, name string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	query := url.Values{"watch": {"true"}, "fieldSelector": {"metadata.name=" + name}}
	resp, err := c.send(ctx, http.MethodGet, c.Server()+collection+"?"+query.Encode(), nil)
	if err != nil {
		return fmt.Errorf("wait for %s in %s: %w", name, collection, err)
	}
	defer resp.Body.Close()
	for d := json.NewDecoder(resp.Body); ; {
		var e struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		if err := d.Decode(&e); err != nil {
			return fmt.Errorf("wait for %s in %s: %s: %w", name, collection, resp.Status, err)
		}
		switch e.Type {
		case "ADDED", "MODIFIED":
			return nil
		default:
			return fmt.Errorf("wait for %s in %s: %s %s", name, collection, e.Type, e.Object)
		}
	}
}

const (
	startLimit   = 2 * time.Minute // of one program; usual is a second or two
	requestLimit = 10 * time.Second
	pollEvery    = 10 * time.Millisecond
)
