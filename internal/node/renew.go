package node

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// jitter spreads renewals, as kubelet does: up to so much of the interval is
// added.
const jitter = 0.04

// tries is how many requests one renewal may take: read, write, read again.
const tries = 4

// keepLease renews the lease until ctx ends.
func (n *Node) keepLease(ctx context.Context) {
	var l lease
	var retry backoff
	every := n.cfg.LeaseDuration / 4
	timer := time.NewTimer(0)
	defer timer.Stop()
	due := time.Now()
	defer n.renewing.Rest()
	for {
		n.renewing.Rest()
		select {
		case <-ctx.Done():
			return
		case <-n.beat: // the Node is another: its lease goes with the old one
			if now := time.Now(); now.Before(retry.until) || l.read && l.base != nil && l.owned(n.uid()) && now.Before(due) {
				continue
			}
		case <-timer.C:
		}
		n.renewing.Within(tries * n.timeout())
		var err error
		l, err = n.renew(ctx, l, every)
		now := time.Now()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			retry = n.renewed(l, retry)
			due = now.Add(every + time.Duration(n.cfg.Dice()*jitter*float64(every)))
		default:
			retry = retry.failed(err, now, n.cfg.Dice())
			n.notRenewed(err, retry.failures)
			due = retry.until
		}
		timer.Reset(time.Until(due))
	}
}

// renew writes the lease once, unless it has to wait.
func (n *Node) renew(ctx context.Context, l lease, every time.Duration) (lease, error) {
	if !l.rivalAt.IsZero() {
		l.read = false // look whether the other one goes on
	}
	name := n.cfg.Identity.Name
	for range tries {
		node := n.uid()
		verb := l.plan(node, every, time.Now())
		if verb == leaseWait {
			return l, nil
		}
		if verb == leaseRead {
			base, err := n.call(ctx, func(ctx context.Context) (*coordinationv1.Lease, error) { return n.cfg.Leases.Get(ctx, name) })
			if err != nil && !apierrors.IsNotFound(err) {
				return l, fmt.Errorf("read the node's lease: %w", err)
			}
			if err != nil {
				base = nil
			}
			l = l.saw(base, time.Now())
			continue
		}
		next := l.renewal(name, node, n.cfg.LeaseDuration, n.cfg.Wall())
		l = l.sending(next)
		put := n.cfg.Leases.Update
		if verb == leaseCreate {
			put = n.cfg.Leases.Create
		}
		answer, err := n.call(ctx, func(ctx context.Context) (*coordinationv1.Lease, error) { return put(ctx, next) })
		if err == nil {
			n.answered()
			return l.wrote(answer), nil
		}
		if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || verb == leaseUpdate && apierrors.IsNotFound(err) {
			l.read = false // it is not what it was
			continue
		}
		l.read = false // whether it arrived is not known
		return l, fmt.Errorf("renew the node's lease: %w", err)
	}
	return l, fmt.Errorf("renew the node's lease: it changed %d times meanwhile", tries/2)
}

func (n *Node) call(ctx context.Context, f func(context.Context) (*coordinationv1.Lease, error)) (*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, n.timeout())
	defer cancel()
	return f(ctx)
}

// renewed takes a turn without an error into account.
func (n *Node) renewed(l lease, retry backoff) backoff {
	rival := l.twice && !l.rivalAt.IsZero()
	n.mu.Lock()
	was := n.rival
	n.rival = rival
	n.shown.RenewError = ""
	if l.rivalAt.IsZero() && l.base != nil {
		n.shown.Renewed = time.Now()
	}
	n.mu.Unlock()
	switch {
	case rival && !was:
		n.cfg.Logger.Error("another agent renews the lease of this node and is left to it: this one writes neither lease nor status; "+
			"stop the other one, or give one of the hosts another name", "node", n.cfg.Identity.Name)
	case !rival && was:
		n.cfg.Logger.Info("nobody else renews the lease of this node any more", "node", n.cfg.Identity.Name)
		knock(n.poke)
	}
	if retry.failures > 0 {
		n.cfg.Logger.Info("the node's lease is renewed again", "failures", retry.failures)
	}
	return backoff{}
}

func (n *Node) notRenewed(err error, failures int) {
	n.reconnect(err, failures)
	text := err.Error()
	n.mu.Lock()
	again := n.shown.RenewError == text
	n.shown.RenewError = text
	n.mu.Unlock()
	if !again {
		n.cfg.Logger.Warn("the node's lease is not renewed; its pods go on", "err", err)
	}
}

// uid is that of the Node as it is known.
func (n *Node) uid() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return uid(n.seen.node)
}
