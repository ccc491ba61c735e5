package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Notify tells the service manager how the daemon is: READY once ready is
// closed, STATUS when it changes, and WATCHDOG at half its time, but only while
// every check holds. Without a service manager it does nothing.
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
			n.tell(daemon.SdNotifyStopping)
			return nil
		case <-beat.C:
		}
	}
}

func (n *Notify) tell(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.Logger.Warn("tell the service manager", "err", err)
	}
}
