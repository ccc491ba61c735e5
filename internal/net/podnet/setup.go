package podnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"nodeagent/internal/failpoint"
)

// Setup gives a sandbox its network: interfaces, addresses, routes, published
// ports. Called again for a sandbox that has its network it only returns it;
// what a crash left half made it makes anew. If it fails, nothing stays, and
// what could not be undone is undone later by Run, Prune or Teardown.
func (n *Network) Setup(ctx context.Context, r Request) (Result, error) {
	ctx, end, err := n.begin(ctx, &r)
	if err != nil {
		return Result{}, err
	}
	defer end()
	ports, err := r.ports()
	if err != nil {
		return Result{}, err
	}
	if old := n.record(r.SandboxID); old != nil {
		if old.Netns == "" {
			old = n.adopt(old, &r)
		}
		if old.Done && old.Netns == r.Netns && n.alive(old) == nil {
			return Result{Addrs: slices.Clone(old.Addrs)}, nil
		}
		if err := n.undo(ctx, old, r.Netns); err != nil {
			return Result{}, fmt.Errorf("undo an earlier start of sandbox %s: %w", r.SandboxID, err)
		}
	}
	rec, conf, err := n.begun(&r, ports)
	if err != nil {
		return Result{}, err
	}
	done, err := n.build(ctx, &r, rec, conf)
	if err != nil {
		n.rollback(ctx, rec)
		return Result{}, fmt.Errorf("set up network of sandbox %s: %w", r.SandboxID, err)
	}
	n.mu.Lock()
	n.recs[done.Sandbox] = done
	n.mu.Unlock()
	return Result{Addrs: slices.Clone(done.Addrs)}, nil
}

// adopt completes a record that was rebuilt from the kernel alone.
func (n *Network) adopt(rec *record, r *Request) *record {
	c := *rec
	c.Netns, c.Namespace, c.Name, c.UID = r.Netns, r.Namespace, r.Name, r.UID
	if n.alive(&c) != nil {
		return rec
	}
	if err := n.save(&c); err != nil {
		n.log.Warn("cannot write the record of a pod network again", "sandbox", c.Sandbox, "error", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.recs[c.Sandbox] = &c
	return &c
}

// begun reserves ports and addresses for a new record.
func (n *Network) begun(r *Request, ports []port) (*record, *netConf, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.readyLocked(); err != nil {
		return nil, nil, err
	}
	for _, other := range n.recs {
		for _, p := range ports {
			if i := slices.IndexFunc(other.Ports, p.clashes); i >= 0 {
				return nil, nil, fmt.Errorf("publish %s: sandbox %s of pod %s/%s has %s", p, other.Sandbox, other.Namespace, other.Name, other.Ports[i])
			}
		}
	}
	rec := &record{Sandbox: r.SandboxID, Namespace: r.Namespace, Name: r.Name, UID: r.UID, Netns: r.Netns, Ports: ports}
	if n.conf != nil {
		rec.CNI = newCall(n.conf, r)
	} else {
		addrs, err := n.pool.take(r.SandboxID)
		if err != nil {
			return nil, nil, err
		}
		rec.Addrs, rec.Link = addrs, linkName(r.SandboxID)
	}
	n.recs[r.SandboxID] = rec
	return rec, n.conf, nil
}

// build makes everything that rec reserves and returns the finished record.
func (n *Network) build(ctx context.Context, r *Request, rec *record, conf *netConf) (*record, error) {
	if err := n.save(rec); err != nil {
		return nil, err
	}
	done := *rec
	done.Done = true
	var err error
	if rec.CNI != nil {
		done.Addrs, err = n.buildCNI(ctx, r, rec)
	} else {
		err = n.buildBridge(ctx, rec)
	}
	if err == nil {
		err = n.save(&done)
	}
	return &done, err
}

func (n *Network) buildBridge(ctx context.Context, rec *record) error {
	select {
	case n.turns <- struct{}{}:
		defer func() { <-n.turns }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	ns, err := openNetns(rec.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	h, err := routes()
	if err != nil {
		return err
	}
	defer h.Close()
	bridge, err := h.LinkByName(n.cfg.Bridge)
	if err != nil {
		n.kick()
		return fmt.Errorf("find bridge %s: %w", n.cfg.Bridge, err)
	}
	if err := n.addLink(h, bridge.Attrs(), rec, ns); err != nil {
		return err
	}
	if err := n.fillNetns(rec, ns); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return n.openPorts(ctx, rec)
}

// openPorts publishes a record's ports.
func (n *Network) openPorts(ctx context.Context, rec *record) error {
	if len(rec.Ports) == 0 {
		return nil
	}
	if err := failpoint.At(failpoint.PodnetPortsBefore); err != nil {
		return err
	}
	bs := bindings(rec.Ports, rec.Addrs)
	if err := n.changeRules(func(b ruleBackend) error { return b.add(ctx, bs) }); err != nil {
		return fmt.Errorf("publish ports: %w", err)
	}
	// A UDP peer that has been sending all along has a connection entry that
	// leads elsewhere, and each packet keeps it alive.
	if err := n.flows.forget(bs, nil); err != nil {
		return err
	}
	return failpoint.At(failpoint.PodnetPortsAfter)
}

// closePorts takes a record's ports back, unless they are a plugin's.
func (n *Network) closePorts(ctx context.Context, rec *record) error {
	if len(rec.Ports) == 0 || rec.CNI != nil {
		return nil
	}
	if err := failpoint.At(failpoint.PodnetUnportsBefore); err != nil {
		return err
	}
	bs := bindings(rec.Ports, rec.Addrs)
	if err := n.changeRules(func(b ruleBackend) error { return b.remove(ctx, bs) }); err != nil {
		return fmt.Errorf("take back published ports: %w", err)
	}
	if err := n.flows.forget(bs, rec.Addrs); err != nil {
		return err
	}
	return failpoint.At(failpoint.PodnetUnportsAfter)
}

func (n *Network) changeRules(change func(ruleBackend) error) error {
	n.rulesMu.Lock()
	defer n.rulesMu.Unlock()
	if n.rules == nil {
		return errors.New("no firewall backend is usable yet")
	}
	return change(n.rules)
}

// rollback undoes a Setup that failed, though its context may be over.
func (n *Network) rollback(ctx context.Context, rec *record) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	err := n.undo(ctx, rec, rec.Netns)
	if err == nil {
		return
	}
	n.log.Warn("pod network that failed to start could not be undone; trying again",
		"sandbox", rec.Sandbox, "pod", rec.Namespace+"/"+rec.Name, "error", err)
	doomed := *rec
	doomed.Doomed = true
	if err := n.save(&doomed); err != nil {
		n.log.Warn("could not note a pod network to be undone", "sandbox", rec.Sandbox, "error", err)
	}
	n.mu.Lock()
	n.recs[rec.Sandbox] = &doomed
	n.mu.Unlock()
	n.kick()
}

// save writes a record to the journal of its kind.
func (n *Network) save(rec *record) error {
	if err := failpoint.At(failpoint.PodnetRecordBefore); err != nil {
		return err
	}
	put := n.putBridge
	if rec.CNI != nil {
		put = n.saveCNI
	}
	if err := put(rec); err != nil {
		return err
	}
	return failpoint.At(failpoint.PodnetRecordAfter)
}

func (n *Network) putBridge(rec *record) error {
	if !rec.Done {
		n.runs.setLast(rec.Addrs)
	}
	return n.runs.put(rec)
}

// addrsOf is what a pod with these addresses reports: one a family, IPv4 first.
func addrsOf(all []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, is4 := range []bool{true, false} {
		if i := slices.IndexFunc(all, func(a netip.Addr) bool { return a.Is4() == is4 }); i >= 0 {
			out = append(out, all[i])
		}
	}
	return out
}
