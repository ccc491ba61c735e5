package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// postTimeout bounds the daemon's answer.
const postTimeout = 10 * time.Second

// post asks the daemon to do something, and returns how it answers: the HTTP status and,
// where it refuses, why. what is said of the question in errors.
func post(ctx context.Context, socket, path, what string) (status int, refusal string, err error) {
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://nodeagent"+path, nil)
	if err != nil {
		return 0, "", fmt.Errorf("%s: %w", what, err)
	}
	answer, err := client.Do(req)
	if err != nil {
		return 0, "", unreachableError{fmt.Errorf("%s: %w", what, err)}
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return 0, "", unreachableError{fmt.Errorf("%s: %w", what, err)}
	}
	var body struct {
		Error string `json:"error"`
	}
	if answer.StatusCode != http.StatusOK && (json.Unmarshal(text, &body) != nil || body.Error == "") {
		return 0, "", fmt.Errorf("%s: it answers %s", what, answer.Status)
	}
	return answer.StatusCode, body.Error, nil
}
