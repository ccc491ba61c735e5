// Package critest owns a pod network for tests of the container runtime: it
// gives out addresses, keeps account of them, and fails, stalls or loses its
// answer when told to. It makes no interface and sends no packet.
//
// All methods of Network may be called from any goroutine.
package critest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"

	"nodeagent/internal/cri"
)

// Network is a behavioural fake of a pod network.
type Network struct {
	mu     sync.Mutex
	next   netip.Addr
	held   map[string]netip.Addr // by sandbox
	faults []Fault
}

// Fault is what happens to one call of Setup or Teardown.
type Fault struct {
	Err error
	// Late: the work is done, and then the error returned.
	Late bool
	// Hang: the call waits for the end of its context first.
	Hang bool
}

// New returns a network that gives out addresses from first on.
func New(first netip.Addr) *Network {
	return &Network{next: first, held: map[string]netip.Addr{}}
}

// Fail makes the next calls fail, one after another.
func (n *Network) Fail(faults ...Fault) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults = append(n.faults, faults...)
}

// Held returns the addresses given out, by sandbox.
func (n *Network) Held() map[string]netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.held)
}

// Ready always is nil.
func (n *Network) Ready() error { return nil }

// Setup gives a sandbox its address; the same one when asked again.
func (n *Network) Setup(ctx context.Context, r cri.NetRequest) (cri.NetResult, error) {
	if r.Netns == "" || r.SandboxID == "" || r.UID == "" {
		return cri.NetResult{}, fmt.Errorf("incomplete request %+v", r)
	}
	var out cri.NetResult
	err := n.call(ctx, func() {
		a, ok := n.held[r.SandboxID]
		if !ok {
			a, n.next = n.next, n.next.Next()
			n.held[r.SandboxID] = a
		}
		out.Addrs = []netip.Addr{a}
	})
	return out, err
}

// Teardown takes the address back.
func (n *Network) Teardown(ctx context.Context, r cri.NetRequest) error {
	return n.call(ctx, func() { delete(n.held, r.SandboxID) })
}

func (n *Network) call(ctx context.Context, work func()) error {
	n.mu.Lock()
	var f Fault
	if len(n.faults) > 0 {
		f, n.faults = n.faults[0], n.faults[1:]
	}
	n.mu.Unlock()
	if f.Hang {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	if f.Err != nil && !f.Late {
		return f.Err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	work()
	return f.Err
}

// ErrFault is an error for faults whose text does not matter.
var ErrFault = errors.New("the network failed as it was told to")
