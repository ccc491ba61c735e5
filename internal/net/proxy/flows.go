package proxy

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"nodeagent/internal/net"
)

// forgetter forgets flows beside the loop, since a look at all connections may
// take long. What waits is one set, the latest word for each address.
type forgetter struct {
	table Flows
	state *state
	log   *slog.Logger
	poke  chan struct{} // holds one

	mu    sync.Mutex
	waits net.Flows
}

// forgetTimeout bounds one look.
const forgetTimeout = time.Minute

// add has flows forgotten; the rules that they broke with are in force.
func (f *forgetter) add(flows net.Flows) {
	f.mu.Lock()
	if f.waits == nil {
		f.waits = net.Flows{}
	}
	maps.Copy(f.waits, flows)
	f.mu.Unlock()
	select {
	case f.poke <- struct{}{}:
	default:
	}
}

func (f *forgetter) run(ctx context.Context) {
	var again pause
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.poke:
		}
		f.mu.Lock()
		flows := f.waits
		f.waits = nil
		f.mu.Unlock()
		if len(flows) == 0 {
			continue
		}
		begun := time.Now()
		bounded, cancel := context.WithTimeout(ctx, forgetTimeout)
		n, err := f.table.Forget(bounded, flows)
		cancel()
		f.state.forgot(n, time.Since(begun))
		if err == nil {
			again.reset()
			continue
		}
		wait := again.next()
		f.log.Warn("some UDP clients may go on sending to endpoints that are gone", "again", wait.Round(time.Millisecond), "err", err)
		f.retry(flows)
		linger(ctx, wait)
	}
}

// retry puts flows back, behind what was said of the same addresses meanwhile.
func (f *forgetter) retry(flows net.Flows) {
	f.mu.Lock()
	maps.Copy(flows, f.waits)
	f.waits = flows
	f.mu.Unlock()
	select {
	case f.poke <- struct{}{}:
	default:
	}
}
