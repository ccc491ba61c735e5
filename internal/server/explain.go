package server

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// explainTimeout bounds what a pod's worker, or the loop of service rules, may take: they
// answer from memory.
const explainTimeout = time.Second

// explain takes the pod from the query: ?uid=….
func (s *Socket) explain(w http.ResponseWriter, r *http.Request) {
	fromMemory(w, r, func(ctx context.Context) (any, error) { return s.cfg.Explain(ctx, r.URL.Query().Get("uid")) })
}

// service takes the Service from the query: ?namespace=…&name=….
func (s *Socket) service(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	fromMemory(w, r, func(ctx context.Context) (any, error) { return s.cfg.Service(ctx, q.Get("namespace"), q.Get("name")) })
}

// fromMemory asks within the time that who answers from memory may take.
func fromMemory(w http.ResponseWriter, r *http.Request, ask func(context.Context) (any, error)) {
	ctx, cancel := context.WithTimeout(r.Context(), explainTimeout)
	defer cancel()
	got, err := ask(ctx)
	switch {
	case errors.Is(err, ErrNotFound):
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	default:
		write(w, got)
	}
}
