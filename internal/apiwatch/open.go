// Package apiwatch owns how a watch of the API server is opened and given back. It
// never decides what is watched, what a silence means or when to try again: who
// watches does. Any goroutine may call it.
package apiwatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// Open opens the watch that r asks for. The head of the answer has to come within a
// time; the watch itself lasts until it is stopped or ctx ends. client-go has a
// deadline for both together only.
func Open(ctx context.Context, r *rest.Request, within time.Duration) (watch.Interface, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	errLate := fmt.Errorf("the API server does not answer within %s", within)
	late := time.AfterFunc(within, func() { cancel(errLate) })
	w, err := r.Watch(ctx)
	if !late.Stop() {
		err = errors.Join(errLate, err)
	}
	if err != nil {
		if w != nil {
			w.Stop()
		}
		cancel(nil)
		return nil, err
	}
	return opened{w, cancel}, nil
}

// opened gives the connection back with the watch.
type opened struct {
	watch.Interface
	cancel context.CancelCauseFunc
}

// Stop ends the watch and the goroutine that reads it.
func (o opened) Stop() {
	o.cancel(nil)
	o.Interface.Stop()
	for range o.ResultChan() {
		continue
	}
}
