package source

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"
)

var (
	errEnded  = errors.New("the watch ended")
	errShort  = errors.New("the watch ended as soon as it was opened")
	errSilent = errors.New("the watch says nothing any more")
	errPlain  = errors.New("the server does not stream its list")
	errBack   = errors.New("the watch tells of an older version than what was seen before")
	errOdd    = errors.New("the server's resourceVersion is none")
)

// clientDecoding is how client-go says that a watch could not be read on.
const clientDecoding = "ClientWatchDecoding"

// maxQueued is how many events may wait while a snapshot is handed over: they go
// into the next one together.
const maxQueued = 128

// follow watches until the watch ends, and says how it ended; nil means that it is
// to begin anew.
func (a *API) follow(ctx context.Context) error {
	if a.version == "" && a.plain {
		list, err := a.server.list(ctx)
		if err != nil {
			return fmt.Errorf("list pods: %w", err)
		}
		if !isVersion(list.ResourceVersion) {
			return fmt.Errorf("list pods: %w: %q", errOdd, list.ResourceVersion)
		}
		all := a.ours(list)
		a.answered()
		a.replace(all, list.ResourceVersion)
		a.emit()
	}
	first := a.version == ""
	w, err := a.server.watch(ctx, a.version)
	if err != nil {
		return a.refused(err, first)
	}
	queue, end := queued(w)
	defer end()
	return a.stream(ctx, queue, first)
}

// queued lets events wait in a queue, until end is called.
func queued(w watch.Interface) (queue <-chan watch.Event, end func()) {
	q, stop := make(chan watch.Event, maxQueued), make(chan struct{})
	go func() {
		defer close(q)
		for e := range w.ResultChan() {
			select {
			case q <- e:
			case <-stop:
				return
			}
		}
	}()
	return q, func() {
		close(stop)
		w.Stop()
		for range q {
			continue // until the goroutine has ended
		}
	}
}

// stream takes the events of a watch. first tells that it begins with everything
// there is.
func (a *API) stream(ctx context.Context, queue <-chan watch.Event, first bool) error {
	var all map[types.UID]*corev1.Pod // what there is, until it is complete
	limit := a.server.silence()
	if first {
		all, limit = map[types.UID]*corev1.Pod{}, silentFirst
	}
	quiet, up := time.NewTimer(limit), time.NewTimer(stood)
	defer quiet.Stop()
	defer up.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, open := <-queue:
			for more := true; more; {
				if !open {
					a.emit()
					return errEnded
				}
				complete, err := a.take(e, all)
				if err != nil {
					a.emit()
					return err
				}
				if complete {
					all, limit = nil, a.server.silence()
				}
				select {
				case e, open = <-queue:
				default:
					more = false
				}
			}
			a.answered()
			a.emit()
			quiet.Reset(limit)
		case <-up.C: // it may have nothing to say
			a.answered()
			a.emit()
		case <-quiet.C:
			a.plain = a.plain || all != nil // an old server ignores that it was asked for the list
			return errSilent
		case <-a.timer.C:
			a.ask(ctx)
		case got := <-a.answers:
			a.resolve(got)
			a.emit()
			if a.version == "" {
				return nil
			}
		}
	}
}

// take takes one event. While all is not nil, what there is is collected in it;
// complete tells that it is whole and was taken over.
func (a *API) take(e watch.Event, all map[types.UID]*corev1.Pod) (complete bool, err error) {
	if e.Type == watch.Error {
		err := apierrors.FromObject(e.Object)
		if apierrors.HasStatusCause(err, clientDecoding) {
			return false, fmt.Errorf("%w: %w", errEnded, err) // the connection broke
		}
		return false, a.refused(err, all != nil)
	}
	p, ok := e.Object.(*corev1.Pod)
	if !ok {
		return false, fmt.Errorf("the server sends %T where a pod was asked for", e.Object)
	}
	if all == nil {
		return false, a.apply(e.Type, p)
	}
	switch e.Type {
	case watch.Deleted:
		delete(all, p.UID)
	case watch.Bookmark:
		if p.Annotations[metav1.InitialEventsAnnotationKey] != "true" {
			return false, nil
		}
		if !isVersion(p.ResourceVersion) {
			return false, fmt.Errorf("%w: %q", errOdd, p.ResourceVersion)
		}
		a.replace(all, p.ResourceVersion)
		return true, nil
	default:
		if a.isOurs(p) {
			all[p.UID] = a.trim(p)
		}
	}
	return false, nil
}

// ours are the pods of a list that are bound to this node, by UID.
func (a *API) ours(list *corev1.PodList) map[types.UID]*corev1.Pod {
	all := map[types.UID]*corev1.Pod{}
	for i := range list.Items {
		if p := &list.Items[i]; a.isOurs(p) {
			all[p.UID] = a.trim(p)
		}
	}
	return all
}

// isOurs tells whether a pod is bound to this node and has an identity that may become
// part of paths. What was not asked for is not kept, however much it is.
func (a *API) isOurs(p *corev1.Pod) bool {
	return validUID.MatchString(string(p.UID)) && p.Spec.NodeName == a.cfg.NodeName
}

// maxVersion is longer than any number that a server counts with.
const maxVersion = 64

// isVersion tells whether the server can be asked for what comes after a version. It
// refuses what is none, again and again.
func isVersion(version string) bool {
	_, err := resourceversion.CompareResourceVersion(version, version)
	return err == nil && len(version) <= maxVersion
}

// refused takes an error of the server for what it says of the version that was
// asked about.
func (a *API) refused(err error, first bool) error {
	switch {
	case first && !a.plain && (apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)):
		a.plain = true
		return errPlain
	case isExpired(err), isAhead(err), !first && (apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)):
		a.version = "" // there is nothing after a version that it does not take
	}
	return err
}

// apply takes a change of one pod. Versions only grow in a watch, so that one which
// does not is of a server that was set back; the list will tell.
func (a *API) apply(kind watch.EventType, p *corev1.Pod) error {
	switch {
	case !isVersion(p.ResourceVersion):
		a.version = ""
		return fmt.Errorf("%w: %q", errOdd, p.ResourceVersion)
	case older(p.ResourceVersion, a.version):
		a.version = ""
		return errBack
	}
	a.advance(p.ResourceVersion)
	switch kind {
	case watch.Bookmark:
	case watch.Deleted:
		if a.pods[p.UID] != nil {
			delete(a.pods, p.UID)
			a.changed = true
		}
		a.doubt.drop(p.UID)
	default:
		a.put(a.trim(p))
		a.doubt.drop(p.UID)
	}
	return nil
}

// advance notes up to where everything is known.
func (a *API) advance(version string) {
	a.version = version
	if older(a.highest, version) {
		a.highest = version
	}
}

// put takes a pod, unless a later version of it is known. One that differs only in
// what the node itself has written stays as it is: nobody is to be woken by the echo
// of his own words.
func (a *API) put(p *corev1.Pod) {
	if !a.isOurs(p) {
		return
	}
	old := a.pods[p.UID]
	switch {
	case old == nil:
		a.pods[p.UID] = &held{p, p.ResourceVersion}
	case older(p.ResourceVersion, old.version):
		return
	case sameWish(old.pod, p):
		known := old.version == p.ResourceVersion
		old.version = p.ResourceVersion
		if a.cfg.Echo != nil && !known {
			a.cfg.Echo(p)
		}
		return
	default:
		old.pod, old.version = p, p.ResourceVersion
	}
	a.changed = true
}
