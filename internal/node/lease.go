package node

import (
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// patience is how many renewals are left out when another one has written this
// node's lease, to see whether it goes on. With the one until it is noticed and
// the one until the next look, that is less than the lease lasts.
const patience = 2

// maxSent bounds the renewals of which it is not known whether they arrived.
const maxSent = 8

// lease is what is known of the node's lease. It is a value.
type lease struct {
	read  bool                  // base is what the API showed
	base  *coordinationv1.Lease // nil: there is none
	sent  []metav1.MicroTime    // renewals of ours since the last one that is known to have arrived
	acked metav1.MicroTime      // the one that did
	// rivalAt is when another one's renewal was last noticed; zero: none. twice: it
	// was not the only one.
	rivalAt time.Time
	twice   bool
}

// leaseVerb is what to do with the lease.
type leaseVerb int

const (
	leaseWait leaseVerb = iota
	leaseRead
	leaseCreate
	leaseUpdate
)

// plan decides what to do with the lease at a renewal. node is the UID of the
// Node; every is the time between renewals.
func (l lease) plan(node string, every time.Duration, now time.Time) leaseVerb {
	switch {
	case !l.read:
		return leaseRead
	case !l.rivalAt.IsZero() && now.Before(l.rivalAt.Add(patience*every)):
		return leaseWait
	case l.base != nil:
		return leaseUpdate
	case node == "": // who owns it, or would it stay for ever?
		return leaseWait
	}
	return leaseCreate
}

// saw takes into account what the API shows; nil: there is none. A renewal that
// is not ours, after one of ours was there, is a rival's.
func (l lease) saw(base *coordinationv1.Lease, now time.Time) lease {
	next := lease{read: true, base: base, sent: l.sent, acked: l.acked, rivalAt: l.rivalAt, twice: l.twice}
	if base == nil || base.Spec.RenewTime == nil || l.acked.IsZero() {
		return next
	}
	renewed := *base.Spec.RenewTime
	switch {
	case same(renewed, l.acked):
	case slices.ContainsFunc(l.sent, func(t metav1.MicroTime) bool { return same(t, renewed) }):
		next.acked, next.sent = renewed, nil
	case l.base != nil && l.base.Spec.RenewTime != nil && same(renewed, *l.base.Spec.RenewTime):
	default:
		next.twice = !l.rivalAt.IsZero()
		next.rivalAt = now
	}
	return next
}

// renewal is the lease to write at a wall-clock time. The time of renewal never
// goes back: who watches would take a node whose clock was put back for dead
// until the clock is where it was.
func (l lease) renewal(name, node string, duration time.Duration, wall time.Time) *coordinationv1.Lease {
	next := &coordinationv1.Lease{}
	if l.base != nil {
		next = l.base.DeepCopy()
	}
	next.Name, next.Namespace, next.ManagedFields = name, corev1.NamespaceNodeLease, nil
	next.Spec.HolderIdentity = &name
	next.Spec.LeaseDurationSeconds = new(int32(duration / time.Second))
	at := wall.Truncate(time.Microsecond) // what the API keeps
	for _, t := range append(slices.Clone(l.sent), l.acked, renewTime(l.base)) {
		if !at.After(t.Time) {
			at = t.Add(time.Millisecond)
		}
	}
	next.Spec.RenewTime = &metav1.MicroTime{Time: at}
	if node != "" {
		next.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: name, UID: types.UID(node)}}
	}
	return next
}

func renewTime(l *coordinationv1.Lease) metav1.MicroTime {
	if l == nil || l.Spec.RenewTime == nil {
		return metav1.MicroTime{}
	}
	return *l.Spec.RenewTime
}

// sending notes a renewal that is about to be written.
func (l lease) sending(next *coordinationv1.Lease) lease {
	l.sent = append(slices.Clone(l.sent), *next.Spec.RenewTime)
	l.sent = l.sent[max(0, len(l.sent)-maxSent):]
	return l
}

// wrote notes that it was.
func (l lease) wrote(answer *coordinationv1.Lease) lease {
	return lease{read: true, base: answer, acked: renewTime(answer)}
}

// owned tells whether the lease goes when the Node goes.
func (l lease) owned(node string) bool {
	return l.base == nil || node == "" || slices.ContainsFunc(l.base.OwnerReferences, func(o metav1.OwnerReference) bool {
		return string(o.UID) == node
	})
}

// same compares what a round through the API keeps.
func same(a, b metav1.MicroTime) bool {
	return a.Truncate(time.Microsecond).Equal(b.Truncate(time.Microsecond))
}
