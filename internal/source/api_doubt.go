package source

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"nodeagent/internal/pod"
)

// When a list is doubted: it lacks so many of the pods that are to run, and more
// than half of them; and how long until the server is asked once more.
const (
	doubtFrom    = 5
	confirmAfter = 30 * time.Second
)

// doubt is a list that was not believed.
type doubt struct {
	missing map[types.UID]bool // what it lacks, less what was heard of since
	why     string
	since   time.Time
	back    bool // it is older than what was seen before
	asked   bool // the server is being asked
}

// drop: of this pod something was heard, so that the list does not matter.
func (d *doubt) drop(uid types.UID) {
	if d != nil {
		delete(d.missing, uid)
	}
}

// answer is what the server says when it is asked once more.
type answer struct {
	to   *doubt
	list *corev1.PodList
	err  error
}

// older tells whether version a comes before b. What is no version comes before
// every one and is never later.
func older(a, b string) bool {
	n, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && n < 0 || a == "" && b != ""
}

// replace takes a complete list. Who is not in it is not wanted any more, unless
// the list cannot be believed: then nothing ends for it before the server has said
// the same again.
func (a *API) replace(all map[types.UID]*corev1.Pod, version string) {
	back := older(version, a.highest)
	missing, alive := a.missing(all)
	a.listed, a.away, a.changed = true, false, true
	why := ""
	switch {
	case a.cfg.NoBrake:
	case back:
		why = fmt.Sprintf("the server's list is of version %s, older than %s, which was seen before", version, a.highest)
	case len(missing) >= doubtFrom && 2*len(missing) > alive:
		why = fmt.Sprintf("the server's list lacks %d of %d pods", len(missing), alive)
	}
	if why == "" {
		a.accept(all, version)
		return
	}
	for _, p := range all {
		// An old list may also hold what is gone since: of that, nothing begins.
		if !back || a.pods[p.UID] != nil {
			a.put(p)
		}
	}
	a.version = version
	if a.doubt == nil {
		a.doubt = &doubt{since: time.Now()}
		a.timer.Reset(confirmAfter)
		a.cfg.Logger.Warn("end no pod for now: the list is not believed until the server is asked again", "why", why, "after", confirmAfter)
	}
	a.doubt.missing, a.doubt.back, a.doubt.why = missing, back, why
}

// accept makes a list what is wanted.
func (a *API) accept(all map[types.UID]*corev1.Pod, version string) {
	if a.doubt != nil {
		a.cfg.Logger.Info("believe the server's list", "pods", len(all))
		a.doubt = nil
		a.timer.Stop()
	}
	maps.DeleteFunc(a.pods, func(uid types.UID, h *held) bool {
		if all[uid] != nil && older(version, a.highest) {
			h.version = "" // the server began anew from here
		}
		return all[uid] == nil
	})
	for _, p := range all {
		a.put(p)
	}
	a.version, a.highest = version, version
	a.trusted, a.changed = true, true
}

// missing are the pods that are to run, or do, and that the list lacks; alive is
// how many there were.
func (a *API) missing(all map[types.UID]*corev1.Pod) (missing map[types.UID]bool, alive int) {
	missing = map[types.UID]bool{}
	look := func(uid types.UID) {
		alive++
		if all[uid] == nil {
			missing[uid] = true
		}
	}
	for uid, h := range a.pods {
		if p := h.pod; p.DeletionTimestamp == nil && !pod.Over(p.Status.Phase) && !mirror(p) {
			look(uid)
		}
	}
	if a.trusted {
		return missing, alive
	}
	for uid := range a.running() { // the first list since the daemon started
		if a.pods[uid] == nil {
			look(uid)
		}
	}
	return missing, alive
}

// running are the pods in the runtime that an API server has named; static pods
// have names of another form.
func (a *API) running() map[types.UID]bool {
	all := map[types.UID]bool{}
	if a.cfg.Running == nil {
		return all
	}
	for _, uid := range a.cfg.Running() {
		if len(uid) == 36 && uid[8] == '-' && uid[23] == '-' {
			all[uid] = true
		}
	}
	return all
}

// ask reads the pods once more, from the store and not from a cache, in a goroutine
// that ends by the deadline of the read. There is one for each doubt.
func (a *API) ask(ctx context.Context) {
	if a.doubt == nil || a.doubt.asked {
		return
	}
	a.doubt.asked = true
	to := a.doubt
	a.owned.Go(func() {
		list, err := a.server.list(ctx)
		select {
		case a.answers <- answer{to, list, err}:
		case <-ctx.Done():
		}
	})
}

// resolve takes the answer to a doubt.
func (a *API) resolve(got answer) {
	if a.doubt != got.to || got.to == nil {
		return // it was settled meanwhile
	}
	a.doubt.asked = false
	if got.err != nil || !isVersion(got.list.ResourceVersion) {
		a.timer.Reset(confirmAfter + rand.N(confirmAfter))
		return
	}
	found, d := a.ours(got.list), a.doubt
	if d.back {
		a.doubt = nil
		if version := got.list.ResourceVersion; older(version, a.highest) {
			a.cfg.Logger.Warn("the server has gone back in time: take what it has now", "version", version, "before", a.highest)
			a.accept(found, version)
		} else {
			a.replace(found, version) // it has caught up, so this is its first list
		}
		a.version = "" // what was watched meanwhile may be of the past
		return
	}
	for _, p := range found {
		a.put(p)
	}
	wrong := 0
	for uid := range d.missing {
		if found[uid] != nil {
			wrong++
			continue
		}
		delete(a.pods, uid)
	}
	a.dropAbsent(found, got.list.ResourceVersion)
	a.cfg.Logger.Info("the server was asked again", "gone", len(d.missing)-wrong, "there", wrong)
	a.doubt, a.trusted, a.changed = nil, true, true
	if wrong > 0 {
		a.version = "" // what told of the list cannot be relied on
	}
}

// dropAbsent drops what a list of this version lacks and would have if it were still
// there: also pods that end or are over, and mirrors, which make no list doubted.
func (a *API) dropAbsent(found map[types.UID]*corev1.Pod, version string) {
	maps.DeleteFunc(a.pods, func(uid types.UID, h *held) bool {
		return found[uid] == nil && !older(version, h.version)
	})
}
