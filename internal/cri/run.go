package cri

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"nodeagent/internal/hostcheck"
	"nodeagent/internal/mkdir"
	"nodeagent/internal/shimapi"
)

// Run connects to containerd, adopts everything, and keeps the picture true
// until ctx ends: exit records, events, a look at the processes now and then, and
// a relist after each reconnect and rarely else, since every record comes with
// its whole spec. It survives containerd being away, hung or restarted. It touches no
// container when it ends.
func (n *Native) Run(ctx context.Context) error {
	if err := n.prepareRunDir(); err != nil {
		return err
	}
	for _, dir := range []string{n.cfg.StateDir, n.cfg.NetnsDir} {
		if err := mkdir.All(dir, 0o755); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	defer n.client.Close()
	defer n.settles.wait()
	defer n.landExecs()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.watchFiles(ctx) })
	g.Go(func() error { return n.watchPins(ctx) })
	g.Go(func() error { return n.endLeftExecs(ctx) })
	g.Go(func() error { return n.keepConnection(ctx) })
	return g.Wait()
}

// keepConnection runs a session for each time that containerd is there.
func (n *Native) keepConnection(ctx context.Context) error {
	for ctx.Err() == nil {
		err := n.session(ctx)
		if ctx.Err() != nil {
			break
		}
		n.unhealthy(err)
		if errors.Is(err, errTooOld) {
			sleep(ctx, n.cfg.PingInterval) // it answers, and will until somebody upgrades it
			continue
		}
		n.awaitReady(ctx)
	}
	return nil
}

// awaitReady waits until the connection is up, or for a moment when it seems
// up already although the last session failed.
func (n *Native) awaitReady(ctx context.Context) {
	conn, ok := n.client.Conn().(*grpc.ClientConn)
	if !ok || conn.GetState() == connectivity.Ready {
		sleep(ctx, 200*time.Millisecond)
		return
	}
	for {
		state := conn.GetState()
		if state == connectivity.Ready || state == connectivity.Shutdown {
			return
		}
		if state == connectivity.Idle {
			conn.Connect()
		}
		if !conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}

// session subscribes to events, brings the picture up to date, and keeps it so
// until containerd fails to answer.
func (n *Native) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := n.ping(ctx); err != nil {
		return err
	}
	events, failed := n.subscribe(ctx) // before the list: no gap between them
	if err := n.relist(ctx); err != nil {
		return err
	}
	n.healthy()
	ping := time.NewTicker(n.cfg.PingInterval)
	defer ping.Stop()
	look := time.NewTicker(n.cfg.LookEvery)
	defer look.Stop()
	relist := time.NewTicker(n.cfg.RelistEvery)
	defer relist.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case e := <-events:
			if n.handleEvent(ctx, e) {
				err = n.relist(ctx)
			}
		case err = <-failed:
			if err == nil {
				err = errors.New("event stream ended")
			}
		case <-ping.C:
			err = n.ping(ctx)
		case <-look.C:
			n.settleSuspects(ctx)
		case <-relist.C:
			err = n.relist(ctx)
		}
		if err != nil {
			return err
		}
	}
}

var errTooOld = errors.New("refuse to work with this containerd")

// ping asks containerd for its version: the cheapest call that a hung daemon
// does not answer. One that is too old is not worked with, until it is a newer
// one that answers.
func (n *Native) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, min(n.cfg.CallTimeout, n.cfg.PingInterval))
	defer cancel()
	v, err := n.client.Version(ctx)
	if err != nil {
		return fmt.Errorf("ask containerd for its version: %w", err)
	}
	if old := hostcheck.OldContainerd(v.Version); old != "" {
		return fmt.Errorf("%w: %s", errTooOld, old)
	}
	return nil
}

// health is what Healthy answers.
type health struct {
	mu    sync.Mutex
	err   error
	since time.Time
}

// Healthy returns nil, or why and since when containerd does not serve.
func (n *Native) Healthy() error {
	n.health.mu.Lock()
	defer n.health.mu.Unlock()
	if n.health.err == nil {
		return nil
	}
	return fmt.Errorf("RuntimeUnresponsive since %s: %w", n.health.since.UTC().Format(time.RFC3339), n.health.err)
}

func (n *Native) unhealthy(err error) {
	defer n.cfg.Changed() // with no lock held
	n.health.mu.Lock()
	defer n.health.mu.Unlock()
	if n.health.err == nil || errors.Is(n.health.err, errNotConnected) {
		n.health.since = time.Now()
		n.log.Error("containerd does not serve", "err", err)
	}
	n.health.err = err
}

func (n *Native) healthy() {
	defer n.cfg.Changed() // with no lock held
	n.health.mu.Lock()
	defer n.health.mu.Unlock()
	if n.health.err != nil {
		n.log.Info("containerd serves", "after", time.Since(n.health.since))
	}
	n.health.err = nil
}

// exitDir is where the shims put their records.
func (n *Native) exitDir() string { return shimapi.ExitDir(n.cfg.RunDir) }
