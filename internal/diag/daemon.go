package diag

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/source"
	"nodeagent/internal/volume"
)

const (
	// daemonTimeout is how long the daemon may take to answer: it answers from
	// memory, so a slow one is stuck, and the view is made without it.
	daemonTimeout = 2 * time.Second
	// daemonMax bounds an answer.
	daemonMax = 256 << 20
)

// ErrNoDaemon tells that the daemon does not answer.
var ErrNoDaemon = errors.New("the daemon does not answer")

// daemon asks the daemon's local socket.
type daemon struct{ socket string }

func (d daemon) get(ctx context.Context, document string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, daemonTimeout)
	defer cancel()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", d.socket)
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://nodeagent/v1/"+document, nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoDaemon, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%w with %s: it said %s", ErrNoDaemon, document, resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, daemonMax)).Decode(into); err != nil {
		return fmt.Errorf("%w: read its %s: %w", ErrNoDaemon, document, err)
	}
	return nil
}

func (d daemon) pods(ctx context.Context) ([]corev1.Pod, error) {
	var list corev1.PodList
	err := d.get(ctx, "pods", &list)
	return list.Items, err
}

func (d daemon) problems(ctx context.Context) ([]source.Problem, error) {
	var list []source.Problem
	err := d.get(ctx, "problems", &list)
	return list, err
}

func (d daemon) volumes(ctx context.Context) (all map[string]volume.Reading, err error) {
	err = d.get(ctx, "volumes", &all)
	return all, err
}

// DaemonVersion asks the daemon at the socket for its version.
func DaemonVersion(ctx context.Context, socket string) (string, error) {
	var version string
	err := daemon{socket}.get(ctx, "version", &version)
	return version, err
}
