package hook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	// userAgent names the Kubernetes level that this program implements, as kubelet
	// does in its hooks.
	userAgent = "kube-lifecycle/1.36"
	// maxBody is how much of an answer is read; nothing of it is kept.
	maxBody = 10 << 10
	// maxHeader bounds what a container may answer before its body.
	maxHeader = 64 << 10
	// maxRedirects on the same host, as in kubelet.
	maxRedirects = 10
)

// get asks the container. Any answer is a success. One that speaks plain HTTP where
// HTTPS was wanted is asked again so, without credentials.
func get(ctx context.Context, a *corev1.HTTPGetAction, addr netip.Addr) error {
	req, err := request(ctx, a, addr)
	if err != nil {
		return err
	}
	client := &http.Client{CheckRedirect: sameHost, Transport: &http.Transport{
		DisableKeepAlives: true, MaxResponseHeaderBytes: maxHeader,
		// A hook's certificate is whatever the container has.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec
	}}
	err = ask(client, req)
	if err != nil && strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		req = req.Clone(ctx)
		req.URL.Scheme = "http"
		req.Header.Del("Authorization")
		err = ask(client, req)
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("the request was not answered in time: %w", context.Cause(ctx))
	}
	// Not the URL, which the standard library puts in front: a query may hold a secret.
	if outer := (*url.Error)(nil); errors.As(err, &outer) {
		err = outer.Err
	}
	return fmt.Errorf("the request was not answered: %w", err)
}

func ask(client *http.Client, req *http.Request) error {
	answer, err := client.Do(req)
	if err != nil {
		return err
	}
	_, _ = io.CopyN(io.Discard, answer.Body, maxBody)
	return answer.Body.Close()
}

// request builds the request as kubelet's NewRequestForHTTPGetAction.
func request(ctx context.Context, a *corev1.HTTPGetAction, addr netip.Addr) (*http.Request, error) {
	host := a.Host
	if host == "" {
		if !addr.IsValid() {
			return nil, errors.New("the pod has no address to ask")
		}
		host = addr.String()
	}
	target, err := url.Parse(a.Path)
	if err != nil {
		target = &url.URL{Path: a.Path} // too late to refuse it
	}
	target.Scheme = "http"
	if a.Scheme != "" {
		target.Scheme = strings.ToLower(string(a.Scheme))
	}
	target.Host = net.JoinHostPort(host, a.Port.String())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, errors.New("build the request: its path or host cannot stand in a URL")
	}
	req.Header = http.Header{"User-Agent": {userAgent}, "Accept": {"*/*"}}
	own := http.Header{}
	for _, h := range a.HTTPHeaders {
		own.Add(h.Name, h.Value)
	}
	for name, values := range own {
		req.Header[name] = values
	}
	if req.Header.Get("Accept") == "" {
		req.Header.Del("Accept")
	}
	req.Host = own.Get("Host")
	return req, nil
}

// sameHost follows redirects on the host that was asked, and takes another one as the
// answer.
func sameHost(req *http.Request, via []*http.Request) error {
	switch {
	case req.URL.Hostname() != via[0].URL.Hostname():
		return http.ErrUseLastResponse
	case len(via) >= maxRedirects:
		return errors.New("stopped after 10 redirects")
	}
	return nil
}
