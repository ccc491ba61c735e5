package probe

import (
	"context"
	"net"
	"time"
)

// dialer never keeps a connection alive: a probe's is over at once.
func dialer(t *Target, now time.Time) *net.Dialer {
	return &net.Dialer{Deadline: now.Add(timeout(t.Probe)), KeepAlive: -1}
}

// tcpProbe is a success when the port takes a connection.
func tcpProbe(ctx context.Context, t *Target) Outcome {
	address, err := t.address(t.Probe.TCPSocket.Host, t.Probe.TCPSocket.Port)
	if err != nil {
		return Outcome{Err: err}
	}
	c, err := dialer(t, time.Now()).DialContext(ctx, "tcp", address)
	if err != nil {
		return failed("%s", err)
	}
	_ = c.Close() // it has said what it can
	return Outcome{Result: Success}
}
