package podnet

import (
	"context"
	"errors"
	"fmt"
	"os"

	"nodeagent/internal/failpoint"
)

// Teardown takes back all that Setup gave. A sandbox that has nothing, or whose
// namespace is gone already, is no error. After an error, call again: nothing
// is forgotten before it is undone.
func (n *Network) Teardown(ctx context.Context, r Request) error {
	ctx, end, err := n.begin(ctx, &r)
	if err != nil {
		return err
	}
	defer end()
	if n.record(r.SandboxID) == nil {
		return n.undoUnknown(ctx, &r)
	}
	return n.teardown(ctx, r.SandboxID, r.Netns)
}

// undoUnknown runs DEL, as it would be now, for a sandbox without a record: the
// record may have been lost with the state directory, and plugins keep addresses
// that nobody else would give back. They take a DEL for something that they do
// not know as done.
func (n *Network) undoUnknown(ctx context.Context, r *Request) error {
	n.mu.Lock()
	conf := n.conf
	n.mu.Unlock()
	if conf == nil {
		return nil
	}
	ports, err := r.ports()
	if err != nil {
		ports = nil // the ADD was never run with these
	}
	rec := &record{
		Sandbox: r.SandboxID, Namespace: r.Namespace, Name: r.Name, UID: r.UID, Netns: r.Netns,
		Ports: ports, CNI: newCall(conf, r),
	}
	if err := n.undoCNI(ctx, rec, r.Netns); err != nil {
		return fmt.Errorf("tear down network of sandbox %s, whose record is lost: %w", r.SandboxID, err)
	}
	return nil
}

// teardown runs with the sandbox taken.
func (n *Network) teardown(ctx context.Context, sandbox, netns string) error {
	rec := n.record(sandbox)
	if rec == nil {
		return nil
	}
	if netns == "" {
		netns = rec.Netns
	}
	if err := n.undo(ctx, rec, netns); err != nil {
		return fmt.Errorf("tear down network of sandbox %s: %w", sandbox, err)
	}
	return nil
}

// undo takes back all that rec may have made, in the opposite order, and then
// forgets it. Each step is right whether its thing exists or not.
func (n *Network) undo(ctx context.Context, rec *record, netns string) error {
	rec = n.closing(rec)
	if err := n.closePorts(ctx, rec); err != nil {
		return err
	}
	if rec.CNI != nil {
		if err := n.undoCNI(ctx, rec, netns); err != nil {
			return err
		}
	} else if err := n.grave.del(ctx, rec.Link); err != nil {
		return err
	}
	return n.forget(rec)
}

// closing marks a record, so that nobody publishes its ports again.
func (n *Network) closing(rec *record) *record {
	c := *rec
	c.closing, c.Done = true, false
	n.mu.Lock()
	defer n.mu.Unlock()
	n.recs[c.Sandbox] = &c
	return &c
}

// forget drops the record and frees the addresses, in this order: an address
// without a record is free after a crash, too.
func (n *Network) forget(rec *record) error {
	if err := failpoint.At(failpoint.PodnetForgetBefore); err != nil {
		return err
	}
	var err error
	if rec.CNI != nil {
		err = n.cniRecs.Remove(rec.Sandbox)
	} else {
		err = n.runs.drop(rec.Sandbox)
	}
	if err != nil {
		return err
	}
	n.mu.Lock()
	delete(n.recs, rec.Sandbox)
	if rec.CNI == nil {
		n.pool.put(rec.Addrs)
	}
	n.mu.Unlock()
	n.tellVacant()
	return failpoint.At(failpoint.PodnetForgetAfter)
}

// Prune takes back the networks of sandboxes that keep does not know, and
// interfaces and rules that belong to none. It is for the time after adoption,
// when all sandboxes are known. A sandbox must be known to keep before its
// Setup is called.
func (n *Network) Prune(ctx context.Context, keep func(sandboxID string) bool) error {
	select {
	case <-n.loaded:
	case <-ctx.Done():
		return fmt.Errorf("wait for the pod network to be loaded: %w", context.Cause(ctx))
	}
	n.mu.Lock()
	var gone []*record
	for _, r := range n.recs {
		if !keep(r.Sandbox) {
			gone = append(gone, r)
		}
	}
	n.mu.Unlock()
	var errs []error
	for _, r := range gone {
		req := Request{SandboxID: r.Sandbox}
		if _, err := os.Stat(r.Netns); err == nil {
			req.Netns = r.Netns
		}
		if err := n.Teardown(ctx, req); err != nil {
			errs = append(errs, err)
		}
	}
	n.kick() // whose network was lost may not have been known when it was told of
	errs = append(errs, n.pruneLinks(ctx))
	if err := n.syncRules(ctx); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// pruneLinks deletes ports of our bridge that no record knows.
func (n *Network) pruneLinks(ctx context.Context) error {
	h, err := routes()
	if err != nil {
		return err
	}
	defer h.Close()
	links, err := n.ownLinks(h)
	if err != nil {
		return err
	}
	var errs []error
	for name := range links {
		if !n.knowsLink(name) {
			errs = append(errs, n.grave.del(ctx, name))
		}
	}
	return errors.Join(errs...)
}

func (n *Network) knowsLink(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.recs {
		if r.Link == name {
			return true
		}
	}
	return false
}
