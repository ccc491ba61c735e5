package podnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Check looks whether a sandbox still has the network that Setup gave it:
// the namespace at its path and, unless plugins made it, the interface and its
// addresses. An error that wraps ErrLost is final: the sandbox has to be made
// anew.
func (n *Network) Check(ctx context.Context, r Request) error {
	_, end, err := n.begin(ctx, &r)
	if err != nil {
		return err
	}
	defer end()
	rec := n.record(r.SandboxID)
	if rec == nil || !rec.Done {
		return fmt.Errorf("check network of sandbox %s: %w: it has none", r.SandboxID, ErrLost)
	}
	if err := n.alive(rec); err != nil {
		return fmt.Errorf("check network of sandbox %s: %w", r.SandboxID, err)
	}
	return nil
}

// alive compares a record with the kernel.
func (n *Network) alive(rec *record) error {
	ns, err := openNetns(rec.Netns)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	defer ns.Close()
	if rec.CNI != nil {
		// What a plugin made need not be an interface that we could find.
		return nil
	}
	h, err := routesIn(ns, nil)
	if err != nil {
		return err
	}
	defer h.Close()
	eth, err := h.LinkByName(podLink)
	if isNoLink(err) {
		return fmt.Errorf("%w: no %s in %s", ErrLost, podLink, rec.Netns)
	}
	if err != nil {
		return fmt.Errorf("find %s in the pod: %w", podLink, err)
	}
	have, err := addrList(h, eth)
	if err != nil {
		return fmt.Errorf("list addresses of the pod: %w", err)
	}
	addrs := map[netip.Addr]bool{}
	for _, a := range have {
		addrs[prefixOf(a.IPNet).Addr()] = true
	}
	for _, a := range rec.Addrs {
		if !addrs[a] {
			return fmt.Errorf("%w: address %s is not on %s", ErrLost, a, podLink)
		}
	}
	return nil
}

// isGone tells whether a namespace's path leads nowhere any more.
func isGone(path string) bool {
	var fs unix.Statfs_t
	err := unix.Statfs(path, &fs)
	return errors.Is(err, os.ErrNotExist) || (err == nil && fs.Type != unix.NSFS_MAGIC)
}
