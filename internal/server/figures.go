package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// figuresTime is how long figures may take to be read; scrapers wait for 10 s.
const figuresTime = 10 * time.Second

// begun tells whether anything of an answer was written.
type begun struct {
	http.ResponseWriter
	yes bool
}

func (b *begun) Write(p []byte) (int, error) {
	b.yes = true
	return b.ResponseWriter.Write(p)
}

// writeMetrics writes one set of figures. What fails before the first byte is
// answered; an error after that is returned.
func writeMetrics(w http.ResponseWriter, r *http.Request, figures func(context.Context, io.Writer) error) error {
	ctx, cancel := context.WithTimeout(r.Context(), figuresTime)
	defer cancel()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	to := &begun{ResponseWriter: w}
	err := figures(ctx, to)
	if err == nil || to.yes {
		return err
	}
	http.Error(w, fmt.Sprintf("Internal Error: %v", err), http.StatusInternalServerError)
	return nil
}

// summary is what the node and its pods use, in kubelet's form.
func (a *NodeAPI) summary(w http.ResponseWriter, r *http.Request, args []string) {
	if args[0] != "summary" || a.cfg.Summary == nil {
		http.Error(w, "404 page not found", http.StatusNotFound)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), figuresTime)
	defer cancel()
	brief := r.URL.Query()["only_cpu_and_memory"]
	s, err := a.cfg.Summary(ctx, len(brief) == 1 && brief[0] == "true")
	if err != nil {
		http.Error(w, fmt.Sprintf("Internal Error: %v", err), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s) // who asked is gone
}
