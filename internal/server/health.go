package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// Check is one thing that must hold for the daemon to be healthy.
type Check struct {
	Name string
	OK   func() error
}

// Checks are all of them.
type Checks []Check

// Err joins what does not hold.
func (cs Checks) Err() error {
	var errs []error
	for _, c := range cs {
		if err := c.OK(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.Name, err))
		}
	}
	return errors.Join(errs...)
}

// Progress checks that a loop turned within the last limit. A daemon that was
// stopped as a whole (SIGSTOP, a suspended machine) makes progress at once when
// it goes on.
func Progress(name string, last func() time.Time, limit time.Duration) Check {
	return Check{Name: name, OK: func() error {
		if since := time.Since(last()); since > limit {
			return fmt.Errorf("no progress for %s", since.Round(time.Second))
		}
		return nil
	}}
}

// Health serves /healthz: "ok" or 500. It says what is wrong only with
// ?verbose, which shows the names of the checks, never their errors.
type Health struct {
	Addr   string // 127.0.0.1:10248
	Checks Checks

	listener net.Listener
}

// Listen opens the port; Run answers on it.
func (h *Health) Listen() (err error) {
	if h.listener, err = net.Listen("tcp", h.Addr); err != nil {
		return fmt.Errorf("open the health port: %w; is a kubelet running here? healthzPort: 0 turns it off", err)
	}
	return nil
}

// Try opens the port and closes it again: a port that is taken is told before
// anything depends on it.
func (h *Health) Try() error {
	if err := h.Listen(); err != nil {
		return err
	}
	return h.listener.Close()
}

// Run serves until ctx ends. Listen comes first.
func (h *Health) Run(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", h.healthz)
	return serve(ctx, &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, MaxHeaderBytes: maxHeader}, h.listener)
}

func (h *Health) healthz(w http.ResponseWriter, r *http.Request) {
	var text strings.Builder
	healthy := true
	for _, c := range h.Checks {
		mark := "[+]"
		if c.OK() != nil {
			mark, healthy = "[-]", false
		}
		fmt.Fprintf(&text, "%s%s\n", mark, c.Name)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if !healthy {
		w.WriteHeader(http.StatusInternalServerError)
	}
	switch {
	case r.URL.Query().Has("verbose"):
		fmt.Fprint(w, text.String())
	case healthy:
		fmt.Fprint(w, "ok")
	default:
		fmt.Fprint(w, "unhealthy")
	}
}
