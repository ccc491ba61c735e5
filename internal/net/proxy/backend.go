// Package proxy owns the loop that keeps the node's service rules what the
// Services and EndpointSlices of the API server ask for. So far it is only what
// that loop asks of whoever programs the rules.
//
// It never decides what a rule is (internal/net does) and knows no firewall.
// One goroutine calls a Backend; Watch runs in another.
package proxy

import (
	"context"

	"nodeagent/internal/net"
)

// Backend programs a table into the kernel.
type Backend interface {
	// Sync makes the kernel hold exactly the table, whatever it held before. It is
	// for the start, for when Watch wakes, and after an error.
	Sync(context.Context, *net.Table) (net.Report, error)
	// Apply makes the changes of a diff; the table is that after it.
	Apply(context.Context, *net.Table, *net.Diff) error
	// Watch calls wake, which must not block, when somebody else changed the
	// rules, until the context ends or the news are lost.
	Watch(ctx context.Context, wake func()) error
}
