package proxy

import (
	"context"
	"net/http"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/net"
)

// Backend programs a table into the kernel. An error for which net.IsRefused holds
// says that the kernel does not take the rules as they are: then it still holds
// what it held, and the loop looks for the service at fault.
type Backend interface {
	// Sync makes the kernel hold exactly the table, whatever it held before. It is
	// for the start, for when Watch wakes, and after an error.
	Sync(context.Context, *net.Table) (net.Report, error)
	// Apply makes the changes of a diff; the table is that after it.
	Apply(context.Context, *net.Table, *net.Diff) error
	// Watch calls wake, which does not block, when it begins to listen and when
	// somebody else changed the rules, until the context ends or the news are lost.
	Watch(ctx context.Context, wake func()) error
}

// successor takes the place of another proxy. A Backend that can do that has it;
// it is called once, when our own rules are in force, and says what it removed.
type successor interface {
	TakeOver(context.Context) ([]string, error)
}

// counter is a Backend that counts what dashboards know of kube-proxy in its mode.
type counter interface{ Counts() net.Counts }

// closer is a Backend that holds something open.
type closer interface{ Close() }

// Facts are what a Backend may depend on of the Node.
type Facts struct {
	Addrs    []netip.Addr   // primary addresses of each family
	PodCIDRs []netip.Prefix // its pods'
}

func (f Facts) equal(o Facts) bool {
	return slices.Equal(f.Addrs, o.Addrs) && slices.Equal(f.PodCIDRs, o.PodCIDRs)
}

// Flows forgets flows that lead nowhere, and says how many there were.
type Flows interface {
	Forget(context.Context, net.Flows) (int, error)
}

// Teller tells the cluster what is wrong with a Service. It must not block.
type Teller interface {
	Service(key net.Key, uid types.UID, reason, message string)
}

// Serve answers on an address until ctx ends; an error says that it cannot.
// opened is called when it can.
type Serve func(ctx context.Context, addr string, h http.Handler, opened func()) error
