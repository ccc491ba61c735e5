package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/net"
)

// checks answers load balancers that ask this node for a service with policy Local,
// each on the service's health-check port, at all addresses of the node.
type checks struct {
	serve  Serve
	teller Teller
	node   string
	state  *state
	log    *slog.Logger

	ctx   context.Context // of Run
	owned *sync.WaitGroup // of Run

	mu sync.Mutex
	by map[net.Key]*check
}

// check is one port. Its number of endpoints is read by who answers.
type check struct {
	port  uint16
	local int
	uid   types.UID
	end   context.CancelFunc
}

func newChecks(cfg Config, s *state) *checks {
	return &checks{serve: cfg.Serve, teller: cfg.Teller, node: cfg.NodeName, state: s, log: cfg.Logger, by: map[net.Key]*check{}}
}

func (c *checks) begin(ctx context.Context, owned *sync.WaitGroup) { c.ctx, c.owned = ctx, owned }

// set takes what a service is now, or that it has no port any more.
func (c *checks) set(k net.Key, h net.Health, uid types.UID, ok bool) {
	if c.serve == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.by[k]
	if old != nil && ok && old.port == h.Port {
		old.local, old.uid = h.Local, uid
		return
	}
	if old != nil {
		old.end()
		delete(c.by, k)
	}
	if !ok {
		return
	}
	ctx, end := context.WithCancel(c.ctx)
	n := &check{h.Port, h.Local, uid, end}
	c.by[k] = n
	c.owned.Go(func() { c.run(ctx, k, n) })
}

// run answers until the port is not wanted any more. One that is taken is told of
// once, and tried again.
func (c *checks) run(ctx context.Context, k net.Key, n *check) {
	var again pause
	told := false
	for ctx.Err() == nil {
		err := c.serve(ctx, fmt.Sprintf(":%d", n.port), c.handler(k, n), again.reset)
		if ctx.Err() != nil {
			return
		}
		if !told {
			told = true
			why := fmt.Sprintf("node %s failed to start healthcheck %q on port %d: %v", c.node, k, n.port, err)
			c.log.Warn("load balancers get no answer", "service", k, "port", n.port, "err", err)
			if c.teller != nil {
				c.mu.Lock()
				uid := n.uid
				c.mu.Unlock()
				c.teller.Service(k, uid, "FailedToStartServiceHealthcheck", why)
			}
		}
		linger(ctx, again.next())
	}
}

// handler answers as kube-proxy does: 200 where a ready endpoint is on this node
// and the rules are what they should be.
func (c *checks) handler(k net.Key, n *check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c.mu.Lock()
		local := n.local
		c.mu.Unlock()
		healthy := c.state.healthy()
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(local))
		if local == 0 || !healthy {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintf(w, "{\n\t\"service\": {\n\t\t\"namespace\": %q,\n\t\t\"name\": %q\n\t},\n\t\"localEndpoints\": %d,\n\t\"serviceProxyHealthy\": %v\n}",
			k.Namespace, k.Name, local, healthy)
	})
}
