package main

import (
	"context"
	"os"
	"runtime/debug"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/server"
)

// The daemon shares its node with the pods: it collects at half the growth that
// Go would wait for, unless GOGC says otherwise, and gives back what a burst of
// pods took once nothing has changed for a while.
const (
	gcPercent = 50
	calmAfter = 5 * time.Second
)

// tuneMemory sets what the environment and the configuration leave open.
func tuneMemory(limit int64) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if limit > 0 {
		debug.SetMemoryLimit(limit)
	}
}

// giveBack returns memory to the kernel when the pods have been calm. It sleeps
// between changes: at rest it costs nothing.
func giveBack(ctx context.Context, pods server.Pods) error {
	calm := time.AfterFunc(calmAfter, debug.FreeOSMemory)
	defer calm.Stop()
	err := pods.Watch(ctx, func(*corev1.Pod, bool) error {
		calm.Reset(calmAfter)
		return nil
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}
