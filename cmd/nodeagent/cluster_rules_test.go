package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// TestRemovalIsTriedAgain: rules that cannot go at once go later, and a daemon that
// ends waits for nothing.
func TestRemovalIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{log: slog.New(slog.DiscardHandler)}
		begun, tries := time.Now(), 0
		err := d.persist(t.Context(), func(context.Context) error {
			if tries++; tries < 4 {
				return errors.New("another program has the lock")
			}
			return nil
		})
		if took := time.Since(begun); err != nil || tries != 4 || took != 7*firstRemoveWait {
			t.Errorf("%d tries took %v: %v", tries, took, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		tries = 0
		err = d.persist(ctx, func(context.Context) error {
			tries++
			time.AfterFunc(time.Second, cancel)
			return errors.New("another program has the lock")
		})
		if err != nil || tries != 1 {
			t.Errorf("%d tries of a daemon that ends: %v", tries, err)
		}
	})
}
