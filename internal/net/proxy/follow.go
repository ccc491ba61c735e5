package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"

	"nodeagent/internal/net"
)

// maxQueued is how many news wait for the loop: who reads the API server waits
// with the next, and so does the connection.
const maxQueued = 256

var (
	errEnded  = errors.New("the watch ended")
	errShort  = errors.New("the watch ended as soon as it was opened")
	errSilent = errors.New("the watch says nothing any more")
	errPlain  = errors.New("the API server does not stream its list")
	errBack   = errors.New("the watch tells of an older version than what was seen before")
)

const (
	// clientDecoding is how client-go says that a watch could not be read on.
	clientDecoding = "ClientWatchDecoding"
	stood          = time.Second     // what ended sooner than this was no watch
	longPause      = 2 * time.Minute // that a server may ask for
)

// follower tells of one kind of object, and keeps none.
type follower struct {
	kind     kind
	server   server
	listener Listener // of Services, or nil
	out      chan<- news
	state    *state
	log      *slog.Logger

	version string // from where the next watch goes on; "" asks for everything
	plain   bool   // the server does not stream its list
	without bool   // it was said that there are none to be had
}

// run follows the API server until ctx ends.
func (f *follower) run(ctx context.Context) {
	var again pause
	for ctx.Err() == nil {
		begun := time.Now()
		err := f.follow(ctx)
		lasted := time.Since(begun)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil || errors.Is(err, errPlain):
			continue
		case errors.Is(err, errEnded) && lasted >= stood:
			again.reset()
			continue
		case errors.Is(err, errEnded):
			err = errShort
		}
		if lasted > 2*lastPause {
			again.reset()
		}
		wait := again.next()
		if seconds, asked := apierrors.SuggestsClientDelay(err); asked {
			wait = max(wait, min(time.Duration(seconds)*time.Second, longPause))
		}
		if f.kind == serviceCIDRs && absent(err) {
			f.goWithout(ctx, err)
			wait = max(wait, absentPause)
		} else {
			f.report(err)
		}
		linger(ctx, wait)
	}
}

// absentPause is until it is asked again for what the API server does not have, or not
// for us.
const absentPause = 10 * time.Minute

func absent(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err)
}

// goWithout lets the rules do without the ranges of services, and says so once. Those
// that are known already stay. API servers have them from Kubernetes 1.33 on.
func (f *follower) goWithout(ctx context.Context, err error) {
	if !f.without {
		f.without = true
		f.log.Warn("addresses of services that no service has are not refused: the ranges of which they are drawn cannot be read; they are there from Kubernetes 1.33 on, and the cluster role \"system:node-proxier\" lets this client read them", "err", err)
	}
	f.send(ctx, news{kind: f.kind, none: true})
}

// report says what is wrong, once.
func (f *follower) report(err error) {
	why := fmt.Sprintf("follow %s of the API server: %v", f.kind, err)
	if apierrors.IsForbidden(err) {
		why += `; bind the cluster role "system:node-proxier" to this client`
	}
	if f.state.trouble(f.kind, why) {
		f.log.Warn("service rules stay as they are", "why", why)
	}
}

// follow watches until the watch ends, and says how it ended; nil means that it is
// to begin anew.
func (f *follower) follow(ctx context.Context) error {
	if f.version == "" {
		f.begin()
	}
	if f.version == "" && f.plain {
		if err := f.list(ctx); err != nil {
			return fmt.Errorf("list: %w", err)
		}
	}
	var all map[net.Key]bool // what there is, until it is complete
	if f.version == "" {
		all = map[net.Key]bool{}
	}
	w, err := f.server.watch(ctx, f.version)
	if err != nil {
		return f.refused(err, all != nil)
	}
	defer w.Stop()
	return f.stream(ctx, w, all)
}

// stream tells what a watch tells. While all is not nil it begins with everything
// that there is.
func (f *follower) stream(ctx context.Context, w watch.Interface, all map[net.Key]bool) error {
	limit := silent
	if all != nil {
		limit = silentFirst
	}
	quiet, up := time.NewTimer(limit), time.NewTimer(stood)
	defer quiet.Stop()
	defer up.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, open := <-w.ResultChan():
			if !open {
				return errEnded
			}
			complete, err := f.take(ctx, e, all)
			if err != nil {
				return err
			}
			if complete {
				all, limit = nil, silent
			}
			if all == nil {
				f.state.well(f.kind)
			}
			quiet.Reset(limit)
		case <-up.C:
			if all == nil { // it may have nothing to say
				f.state.well(f.kind)
			}
		case <-quiet.C:
			f.plain = f.plain || all != nil // an old server ignores that it was asked for the list
			return errSilent
		}
	}
}

// take tells of one event; complete says that everything was told.
func (f *follower) take(ctx context.Context, e watch.Event, all map[net.Key]bool) (complete bool, err error) {
	if e.Type == watch.Error {
		err := apierrors.FromObject(e.Object)
		if apierrors.HasStatusCause(err, clientDecoding) {
			return false, fmt.Errorf("%w: %w", errEnded, err) // the connection broke
		}
		return false, f.refused(err, all != nil)
	}
	o, err := meta.Accessor(e.Object)
	if err != nil || !f.server.is(e.Object) {
		return false, fmt.Errorf("the API server sends %T where one of %s was asked for", e.Object, f.kind)
	}
	if all == nil && older(o.GetResourceVersion(), f.version) {
		f.version = ""
		return false, errBack
	}
	switch {
	case e.Type != watch.Bookmark:
		f.tell(ctx, o, e.Type == watch.Deleted, all)
	case all == nil:
	case o.GetAnnotations()[metav1.InitialEventsAnnotationKey] != "true":
		return false, nil
	default:
		f.complete()
		f.send(ctx, news{kind: f.kind, all: all})
		complete = true
	}
	if all == nil || complete {
		f.version = o.GetResourceVersion()
	}
	return complete, nil
}

// tell hands an object on. Who read a list may not get what was deleted meanwhile.
func (f *follower) tell(ctx context.Context, o metav1.Object, gone bool, all map[net.Key]bool) {
	gone = f.hear(o, gone)
	if k := (net.Key{Namespace: o.GetNamespace(), Name: o.GetName()}); all != nil && gone {
		delete(all, k)
	} else if all != nil {
		all[k] = true
	}
	f.send(ctx, news{kind: f.kind, object: o, gone: gone})
}

// send waits for the loop.
func (f *follower) send(ctx context.Context, n news) {
	select {
	case f.out <- n:
	case <-ctx.Done():
	}
}

// refused takes an error of the server for what it says of the version that was
// asked about.
func (f *follower) refused(err error, first bool) error {
	switch {
	case first && !f.plain && (apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)):
		f.plain = true
		return errPlain
	case expired(err), !first && (apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)):
		f.version = "" // there is nothing after a version that it does not take
	}
	return err
}

// list reads everything, in parts, so that none is large.
func (f *follower) list(ctx context.Context) error {
	all, next := map[net.Key]bool{}, ""
	for {
		l, err := f.server.part(ctx, next)
		if err != nil {
			return err
		}
		about, err := meta.ListAccessor(l)
		if err != nil {
			return err
		}
		if err := meta.EachListItem(l, func(o runtime.Object) error {
			m, err := meta.Accessor(o)
			if err == nil {
				f.tell(ctx, m, false, all)
			}
			return err
		}); err != nil {
			return err
		}
		if next = about.GetContinue(); next == "" {
			f.version = about.GetResourceVersion()
			f.complete()
			f.send(ctx, news{kind: f.kind, all: all})
			return nil
		}
	}
}

// older tells that version a came before b. Versions that cannot be compared do
// not tell.
func older(a, b string) bool {
	c, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && c < 0
}
