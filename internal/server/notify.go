package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// ErrReload is the cause of a context that ends because the daemon begins anew
// with another configuration, in the same process.
var ErrReload = errors.New("the daemon begins anew with another configuration")

// Reloading is what the service manager is told before such a beginning. It then
// waits for READY.
func Reloading() string {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // this clock there always is
	return fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000)
}

// Tell sends the service manager one notice (sd_notify(3)), if there is one.
func Tell(log *slog.Logger, notice string) {
	if _, err := daemon.SdNotify(false, notice); err != nil {
		log.Warn("tell the service manager", "err", err)
	}
}

// Notify tells the service manager how the daemon is: READY once ready is
// closed, STATUS when it changes, WATCHDOG at half its time, but only while
// every check holds, and STOPPING at the end, unless its cause is ErrReload.
// Without a service manager it does nothing.
type Notify struct {
	Ready  <-chan struct{}
	Checks Checks
	Status func() string
	Logger *slog.Logger
}

// idleNotify is how often the status is told where there is no watchdog.
const idleNotify = 10 * time.Second

// Run works until ctx ends.
func (n *Notify) Run(ctx context.Context) error {
	if sent, err := daemon.SdNotify(false, "STATUS=Adopting what runs already"); err != nil || !sent {
		<-ctx.Done() // nobody listens
		return nil
	}
	select {
	case <-ctx.Done():
		n.stopping(ctx)
		return nil
	case <-n.Ready:
	}
	n.tell(daemon.SdNotifyReady)
	interval := idleNotify
	limit, err := daemon.SdWatchdogEnabled(false)
	if err == nil && limit > 0 {
		interval = min(limit/2, idleNotify)
	}
	beat := time.NewTicker(interval)
	defer beat.Stop()
	last := ""
	for {
		status := n.Status()
		if err := n.Checks.Err(); err != nil {
			status = "Unhealthy: " + err.Error()
		} else if limit > 0 {
			n.tell(daemon.SdNotifyWatchdog)
		}
		if status != last {
			last = status
			n.tell("STATUS=" + status)
		}
		select {
		case <-ctx.Done():
			n.stopping(ctx)
			return nil
		case <-beat.C:
		}
	}
}

// stopping tells the daemon's end, unless it begins anew.
func (n *Notify) stopping(ctx context.Context) {
	if !errors.Is(context.Cause(ctx), ErrReload) {
		n.tell(daemon.SdNotifyStopping)
	}
}

func (n *Notify) tell(notice string) { Tell(n.Logger, notice) }
