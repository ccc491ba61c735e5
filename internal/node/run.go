package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Run keeps the Node and its lease until ctx ends. It leaves both as they are
// then: a daemon that ends is no node that goes. It returns nil.
func (n *Node) Run(ctx context.Context) error {
	var all sync.WaitGroup
	all.Go(func() { n.follow(ctx) })
	all.Go(func() { n.keepLease(ctx) })
	n.write(ctx)
	all.Wait()
	return nil
}

// write decides, and writes what was decided, until ctx ends.
func (n *Node) write(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer n.writing.Rest()
	for {
		n.writing.Rest()
		select {
		case <-ctx.Done():
			return
		case <-n.poke:
		case <-timer.C:
		}
		n.writing.Within(2 * n.timeout()) // a request, and a look if it is refused
		if at := n.turn(ctx); at.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(at))
		}
	}
}

// Progress is when the two loops last made progress, the one that writes the Node
// and the one that renews the lease; that of the one that is behind.
func (n *Node) Progress() time.Time {
	write, renew := n.writing.Progress(), n.renewing.Progress()
	if renew.Before(write) {
		return renew
	}
	return write
}

// turn makes one step and tells when to look again; a zero time: when told.
func (n *Node) turn(ctx context.Context) time.Time {
	s, rival := n.sighting()
	n.handOn(s)
	w := n.want()
	n.last.yielded = rival
	st := plan(w, s, n.last, n.cfg.Register, time.Now())
	if st.do == wait {
		return st.at
	}
	answer, err := n.do(ctx, st, w, s.node)
	now := time.Now()
	switch {
	case ctx.Err() != nil:
		return time.Time{}
	case err != nil:
		return n.failed(ctx, err, now)
	}
	n.answered()
	n.show(func(s *Shown) { s.Written, s.WriteError = now, "" })
	if n.last.retry.failures > 0 {
		n.cfg.Logger.Info("the node is written again", "failures", n.last.retry.failures)
	}
	n.last = n.last.wrote(answer, w, st.report, n.cfg.ReportEvery, now, n.cfg.Dice())
	n.sight(answer, true, false)
	return now // what changed meanwhile
}

// want is what the Node shall say now.
func (n *Node) want() *wanted {
	facts, verdicts := n.cfg.Facts(), n.cfg.Conditions.Conditions()
	absent := verdicts.Absent()
	n.show(func(s *Shown) { s.Absent = absent })
	if text := fmt.Sprint(absent); text != n.absent && len(absent)+len(n.absent) > 0 {
		n.absent = text
		n.cfg.Logger.Info("conditions of the node that nobody judges are Unknown", "conditions", absent)
	}
	return want(&n.cfg.Identity, facts, verdicts)
}

// do carries a step out and returns the Node that came of it.
func (n *Node) do(ctx context.Context, st step, w *wanted, seen *corev1.Node) (*corev1.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, n.timeout())
	defer cancel()
	stamp := metav1.NewTime(n.cfg.Wall())
	if st.do == create {
		object := w.object(&n.cfg.Identity)
		object.Status.Conditions = stamped(object.Status.Conditions, nil, stamp)
		answer, err := n.cfg.Nodes.Create(ctx, object)
		if err == nil {
			n.cfg.Logger.Info("registered the node", "uid", answer.UID)
		}
		return answer, wrap(err, "register the node")
	}
	text, err := w.patch(seen, st.change, stamp)
	if err != nil {
		return nil, err
	}
	answer, err := n.cfg.Nodes.PatchStatus(ctx, n.cfg.Identity.Name, text)
	if err != nil {
		return nil, wrap(err, "write the node's status")
	}
	n.cfg.Logger.Debug("wrote the node's status", "changed", st.change.names())
	for _, e := range transitions(n.cfg.Identity.Name, w.status.Conditions, seen.Status.Conditions) {
		n.cfg.Event(e)
	}
	if was, is := seen.Status.NodeInfo.BootID, w.status.NodeInfo.BootID; was != "" && was != is && !n.booted {
		n.booted = true
		n.cfg.Event(Event{corev1.EventTypeWarning, "Rebooted", fmt.Sprintf("Node %s has been rebooted, boot id: %s", n.cfg.Identity.Name, is)})
	}
	return answer, nil
}

func wrap(err error, what string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// failed takes a failed write into account. One that says that the Node is not
// what it was seen as is a reason to look at once.
func (n *Node) failed(ctx context.Context, err error, now time.Time) time.Time {
	stale := apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err) ||
		apierrors.IsConflict(err) || apierrors.IsInvalid(err) // another UID is the one or the other, by the server's version
	if stale && n.last.retry.failures == 0 {
		n.cfg.Logger.Info("the node is not what it was", "err", err)
		if lookErr := n.look(ctx); lookErr == nil {
			n.last.retry = backoff{failures: 1, until: now}
			return now
		}
	}
	n.last.retry = n.last.retry.failed(err, now, n.cfg.Dice())
	n.reconnect(err, n.last.retry.failures)
	text := err.Error()
	n.mu.Lock()
	again := n.shown.WriteError == text
	n.shown.WriteError = text
	n.mu.Unlock()
	if !again { // for days, an API server that is away says the same
		n.cfg.Logger.Warn("the node is not written; its pods go on", "err", err)
	}
	return n.last.retry.until
}

// reconnect gives up connections on which nobody answers. While other requests
// are answered the connection is not what is wrong.
func (n *Node) reconnect(err error, failures int) {
	var answered apierrors.APIStatus
	if failures < 2 || errors.As(err, &answered) {
		return
	}
	n.mu.Lock()
	silent := time.Since(n.heard) > n.timeout()*3/2
	n.mu.Unlock()
	if silent {
		n.cfg.Reconnect()
	}
}

// answered notes that the server did what it was asked for.
func (n *Node) answered() {
	n.mu.Lock()
	n.heard = time.Now()
	n.mu.Unlock()
}

// timeout is the deadline of one request.
func (n *Node) timeout() time.Duration { return min(callTimeout, n.cfg.LeaseDuration/4) }

// handOn tells others of what the Node has become.
func (n *Node) handOn(s sighting) {
	if !s.known || s.node == n.told && n.toldGone == (s.node == nil) {
		return
	}
	was := n.told
	n.told, n.toldGone = s.node, s.node == nil
	n.contain(func() { n.cfg.Changed(s.node) })
	if s.node == nil {
		return
	}
	if was != nil && was.UID == s.node.UID && was.Spec.Unschedulable != s.node.Spec.Unschedulable {
		reason := "NodeSchedulable"
		if s.node.Spec.Unschedulable {
			reason = "NodeNotSchedulable"
		}
		n.cfg.Event(Event{corev1.EventTypeNormal, reason, "Node " + s.node.Name + " status is now: " + reason})
	}
	texts := s.node.Spec.PodCIDRs
	if len(texts) == 0 && s.node.Spec.PodCIDR != "" {
		texts = []string{s.node.Spec.PodCIDR}
	}
	if joined := strings.Join(texts, ","); joined != "" && joined != n.cidrs {
		n.cidrs = joined
		n.handOnCIDRs(texts)
	}
}

func (n *Node) handOnCIDRs(texts []string) {
	var all []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			n.cfg.Logger.Error("the node's range of pod addresses is none; pods keep the old one", "podCIDRs", texts, "err", err)
			return
		}
		all = append(all, p.Masked())
	}
	n.cfg.Logger.Info("pods have addresses from", "podCIDRs", slices.Clone(texts))
	n.contain(func() { n.cfg.PodCIDRs(all) })
}

// contain keeps a panic of who is told from ending the node's heartbeat.
func (n *Node) contain(f func()) {
	defer func() {
		if p := recover(); p != nil {
			n.cfg.Logger.Error("contain a panic", "action", "hand the node on", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	f()
}
