package status

import (
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// key names what a record is about: a pod of the API server by its UID, a static
// pod by its name, since its mirror has a UID of its own.
type key struct {
	uid  types.UID
	name types.NamespacedName
}

// record is what is known of one pod, here and at the API server. It belongs to
// the goroutine of Run.
type record struct {
	key  key
	told *corev1.Pod // as the pod set told it last; nil: it has none
	gone bool        // nothing of it is left on the node

	source   *corev1.Pod // as the source listed it last; nil: it does not
	api      *corev1.Pod // the newest known of the API server; nil: it has none
	answered time.Time   // when api came as an answer to us; zero: from the source
	buried   types.UID   // what the API server said not to have any more
	buriedAt time.Time
	look     bool // what the API server has is in doubt: ask it

	skip      []byte // a difference that the API server does not take
	skipUntil time.Time

	next   task // what is to be done, once it is due
	stale  bool // next has to be found anew
	since  time.Time
	flying bool

	fails   int
	retryAt time.Time
	said    string // the last trouble that was logged

	noise, haste bucket
}

// believe is how long an answer of the API server counts for more than a snapshot
// that seems older. A snapshot that is still older then is of an API server that
// was set back, and right.
const believe = time.Minute

// see takes what the source says that the API server has; nil: nothing of it.
func (r *record) see(p *corev1.Pod, now time.Time) {
	before := r.source
	r.source = p
	recent := !r.answered.IsZero() && now.Sub(r.answered) < believe
	switch {
	case p == r.api:
		r.answered = time.Time{}
		return
	case p == nil && recent && r.key.uid == "" && (before == nil || before.UID != r.api.UID):
		return // a mirror pod that we made a moment ago, and that was never listed
	case p != nil && p.UID == r.buried && now.Sub(r.buriedAt) < believe:
		return
	case p != nil && recent && p.UID == r.api.UID && older(p, r.api):
		return
	}
	r.api, r.answered, r.stale = p, time.Time{}, true
}

// answer takes a pod that the API server answered with.
func (r *record) answer(p *corev1.Pod, now time.Time) {
	r.look, r.stale = false, true
	if r.api != nil && r.api.UID == p.UID && (older(p, r.api) || p.ResourceVersion == r.api.ResourceVersion) {
		return // the watch was quicker
	}
	p.ManagedFields = nil
	r.api, r.answered = p, now
}

// bury notes that the API server does not have the pod any more.
func (r *record) bury(uid types.UID, now time.Time) {
	r.look, r.stale = false, true
	if uid != "" {
		r.buried, r.buriedAt = uid, now
	}
	if r.api != nil && (uid == "" || r.api.UID == uid) {
		r.api, r.answered = nil, time.Time{}
	}
}

// older tells whether p is an older version than q of the same pod. Versions that
// cannot be compared are taken as they come.
func older(p, q *corev1.Pod) bool {
	a, errA := strconv.ParseUint(p.ResourceVersion, 10, 64)
	b, errB := strconv.ParseUint(q.ResourceVersion, 10, 64)
	return errA == nil && errB == nil && a < b
}

// idle tells whether the record says nothing any more.
func (r *record) idle() bool {
	return r.api == nil && r.source == nil && !r.flying && (r.told == nil || r.gone)
}
