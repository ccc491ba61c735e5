package main

import (
	"context"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/server"
)

// The daemon shares its node with the pods: at rest it collects at half the
// growth that Go would wait for. While pods change it spends memory rather than
// CPU, which the pods that start then need, and gives back what it took once
// nothing has changed for a while. GOGC overrules both.
const (
	restPercent = 50
	busyPercent = 200
	calmAfter   = 5 * time.Second
)

// tuneMemory sets what the environment and the configuration leave open.
func tuneMemory(limit int64) {
	setGC(restPercent)
	if limit > 0 {
		debug.SetMemoryLimit(limit)
	}
}

func setGC(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// giveBack spends memory while pods change and returns it to the kernel when
// they have been calm. It sleeps between changes: at rest it costs nothing.
func giveBack(ctx context.Context, pods server.Pods) error {
	var busy atomic.Bool
	calm := time.AfterFunc(calmAfter, func() {
		busy.Store(false)
		setGC(restPercent)
		debug.FreeOSMemory()
		_ = unmapProgram() // without it the daemon is only larger
	})
	defer calm.Stop()
	err := pods.Watch(ctx, func(*corev1.Pod, bool) error {
		if calm.Reset(calmAfter); !busy.Swap(true) {
			setGC(busyPercent)
		}
		return nil
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}
