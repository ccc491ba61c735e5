package server

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// explainTimeout bounds what a pod's worker may take: it answers from memory.
const explainTimeout = time.Second

// explain takes the pod from the query: ?uid=….
func (s *Socket) explain(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), explainTimeout)
	defer cancel()
	answer, err := s.cfg.Explain(ctx, r.URL.Query().Get("uid"))
	switch {
	case errors.Is(err, ErrNotFound):
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	default:
		write(w, answer)
	}
}
