package podnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
)

const (
	// rescan is how often Run looks at everything though nothing was heard:
	// iptables-legacy and sysctls tell nobody when they change.
	rescan = time.Minute
	// calm is the least time between two looks: a tool that fights with us over
	// the table must not take a processor.
	calm = 20 * time.Millisecond
	// retryFirst and retryMost bound the wait after a failure.
	retryFirst = time.Second
	retryMost  = 30 * time.Second
)

// Run loads what is known, makes the bridge, sysctls and rules, and then keeps
// them so: it wakes at a change of the CNI configuration, of our table or of
// our interfaces. It blocks until ctx ends and leaves the network as it is.
func (n *Network) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	// Each looks when it has begun to watch, and at all again now and then.
	wg.Go(func() { n.watchConf(ctx) })
	wg.Go(func() { n.watchRules(ctx) })
	wg.Go(func() { n.watchLinks(ctx) })

	defer n.release()

	wait := retryFirst
	for err := n.load(); err != nil; err = n.load() {
		n.log.Error("cannot load the pod network; trying again", "error", err, "in", wait)
		n.mu.Lock()
		n.failure = err
		n.mu.Unlock()
		if !pause(ctx, wait) {
			return nil
		}
		wait = min(2*wait, retryMost)
	}
	n.reconcile(ctx)
	close(n.loaded)
	n.changed()
	n.tellVacant()
	ready := n.Ready() == nil
	wait = retryFirst
	last := time.Now()
	for {
		next := rescan
		if !n.settled() {
			next, wait = wait, min(2*wait, retryMost)
		} else {
			wait = retryFirst
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-n.wake:
		case <-timer.C:
		}
		timer.Stop()
		if rest := calm - time.Since(last); rest > 0 && !pause(ctx, rest) {
			return nil
		}
		n.reconcile(ctx)
		if now := n.Ready() == nil; now != ready {
			ready = now
			n.changed()
		}
		n.finishDoomed(ctx)
		last = time.Now()
	}
}

func (n *Network) changed() {
	if n.cfg.Changed != nil {
		n.cfg.Changed()
	}
}

// release closes what would outlive Run; who calls Teardown later opens it anew.
func (n *Network) release() {
	n.rulesMu.Lock()
	defer n.rulesMu.Unlock()
	if n.rules != nil {
		n.rules.close()
	}
	n.flows.close()
}

// pause waits, or returns false at once when ctx ends.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// settled tells whether nothing waits to be tried again.
func (n *Network) settled() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.recs {
		if r.Doomed {
			return false
		}
	}
	return n.failure == nil
}

// load fills the records: our files first, then the interfaces' own labels for
// those whose files are gone.
func (n *Network) load() error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	recs, litter, err := n.runs.load(boot)
	if err != nil {
		return err
	}
	for _, e := range litter {
		n.log.Warn("unusable record of a pod network", "error", e)
	}
	cni, err := n.loadCNI()
	if err != nil {
		return err
	}
	byID := map[string]*record{}
	for _, r := range append(recs, cni...) {
		byID[r.Sandbox] = r
	}
	if err := n.fromLinks(byID); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.recs = byID
	for _, r := range byID {
		if r.CNI == nil {
			n.pool.hold(r.Sandbox, r.Addrs)
		}
	}
	for _, a := range n.runs.last() {
		n.pool.resume(a)
	}
	return nil
}

// fromLinks adds a record for each of our interfaces that has none.
func (n *Network) fromLinks(recs map[string]*record) error {
	h, err := routes()
	if err != nil {
		return err
	}
	defer h.Close()
	links, err := n.ownLinks(h)
	if err != nil {
		return err
	}
	var lost []*record
	for name, l := range links {
		sandbox, addrs, ok := parseAlias(l.Attrs().Alias)
		if !ok || linkName(sandbox) != name || recs[sandbox] != nil {
			continue
		}
		r := &record{Sandbox: sandbox, Addrs: addrs, Link: name, Done: true}
		recs[sandbox] = r
		lost = append(lost, r)
		n.log.Warn("found a pod interface without a record; its address stays taken", "sandbox", sandbox, "link", name)
	}
	if len(lost) > 0 {
		n.recoverPorts(lost)
	}
	return nil
}

// recoverPorts reads the ports of pods without a record from the table itself.
func (n *Network) recoverPorts(recs []*record) {
	bs, err := readBindings(n.ruleSet())
	if err != nil {
		return
	}
	owner := map[netip.Addr]*record{}
	for _, r := range recs {
		for _, a := range r.Addrs {
			owner[a] = r
		}
	}
	for _, b := range bs {
		if r := owner[b.Pod]; r != nil {
			r.Ports = merge(r.Ports, b)
		}
	}
}

// merge adds the port of a binding. A wildcard of one family is kept as such: as
// the unspecified address of that family.
func merge(ports []port, b binding) []port {
	p := b.port
	if !p.HostIP.IsValid() {
		p.HostIP = netip.IPv6Unspecified()
		if b.Pod.Is4() {
			p.HostIP = netip.IPv4Unspecified()
		}
	}
	return append(ports, p)
}

// reconcile makes bridge, sysctls and rules what they shall be.
func (n *Network) reconcile(ctx context.Context) {
	n.chooseConf()
	var err error
	if n.bridged() {
		err = n.ensureAll(ctx)
	}
	n.mu.Lock()
	was := n.failure
	n.failure = err
	n.mu.Unlock()
	switch {
	case ctx.Err() != nil:
	case err != nil && (was == nil || was.Error() != err.Error()):
		n.log.Error("pod network is not in order; trying again", "error", err)
	case err == nil && was != nil:
		n.log.Info("pod network is in order again")
	}
}

func (n *Network) ensureAll(ctx context.Context) error {
	if len(n.pool.spans) == 0 {
		return n.syncRules(ctx)
	}
	h, err := routes()
	if err != nil {
		return err
	}
	defer h.Close()
	index, err := n.ensureBridge(h)
	if err != nil {
		return err
	}
	if err := n.ensurePorts(h, index); err != nil {
		return err
	}
	v4, v6 := len(n.pool.prefixes(true)) > 0, len(n.pool.prefixes(false)) > 0
	if err := forwarding(v4, v6); err != nil {
		return err
	}
	if err := n.syncRules(ctx); err != nil {
		return err
	}
	return allowForward(ctx, n.cfg.Bridge, v4, v6)
}

// ensurePorts puts the interfaces of the records on the bridge again, where it
// was deleted and made anew, and tells of those that are gone: when that happened,
// nobody may have listened.
func (n *Network) ensurePorts(h *netlink.Handle, bridge int) error {
	gone := n.links() // before the list: what comes meanwhile is in neither
	links, err := retryDump(h.LinkList)
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	var errs []error
	for _, l := range links {
		name := l.Attrs().Name
		if !gone[name] {
			continue
		}
		delete(gone, name)
		if l.Attrs().MasterIndex == bridge {
			continue
		}
		if err := h.LinkSetMasterByIndex(l, bridge); err != nil && !isNoLink(err) {
			errs = append(errs, fmt.Errorf("put %s on the bridge again: %w", name, err))
			continue
		}
		if err := h.LinkSetHairpin(l, true); err != nil && !isNoLink(err) {
			errs = append(errs, fmt.Errorf("set hairpin mode of %s: %w", name, err))
		}
	}
	for name := range gone {
		n.linkGone(name)
	}
	return errors.Join(errs...)
}

// links are the names of the interfaces that the records say are there.
func (n *Network) links() map[string]bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	names := map[string]bool{}
	for _, r := range n.recs {
		if r.Done && r.Link != "" {
			names[r.Link] = true
		}
	}
	return names
}

// finishDoomed undoes what a failed Setup could not undo itself.
func (n *Network) finishDoomed(ctx context.Context) {
	n.mu.Lock()
	var doomed []string
	for _, r := range n.recs {
		if r.Doomed {
			doomed = append(doomed, r.Sandbox)
		}
	}
	n.mu.Unlock()
	for _, id := range doomed {
		if err := n.finish(ctx, id); err != nil {
			n.log.Warn("pod network still cannot be undone", "sandbox", id, "error", err)
		}
	}
}

func (n *Network) finish(ctx context.Context, sandbox string) error {
	ctx, cancel := context.WithTimeout(ctx, undoTimeout)
	defer cancel()
	unlock, err := n.locks.lock(ctx, sandbox)
	if err != nil {
		return err
	}
	defer unlock()
	if rec := n.record(sandbox); rec == nil || !rec.Doomed {
		return nil
	}
	return n.teardown(ctx, sandbox, "")
}
