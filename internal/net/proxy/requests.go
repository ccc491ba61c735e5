package proxy

import (
	"net/http"
	"strconv"
)

// requests counts what the API server is asked, and how it answers, as client-go does
// for kube-proxy.
type requests struct {
	http.RoundTripper
	state *state
}

// RoundTrip asks, and counts the answer's head: a watch counts when it begins.
func (r requests) RoundTrip(q *http.Request) (*http.Response, error) {
	resp, err := r.RoundTripper.RoundTrip(q)
	code := "<error>"
	if err == nil {
		code = strconv.Itoa(resp.StatusCode)
	}
	r.state.asked(q.Method, code)
	return resp, err
}

// counted is the client with its requests counted.
func counted(c *http.Client, s *state) *http.Client {
	out := *c
	if out.Transport == nil {
		out.Transport = http.DefaultTransport
	}
	out.Transport = requests{out.Transport, s}
	return &out
}
