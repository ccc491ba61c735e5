package cert

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// view is what a look at the files has found.
type view struct {
	paths   []string          // to look again when they change
	leaf    *x509.Certificate // in use, or nil
	usable  bool              // there is something in use
	renew   time.Time         // when to ask for a new one; zero: never
	wants   string            // what would be asked for: an attempt for something else is given up
	problem error
}

// keeper keeps one certificate: it looks at the files whenever they, the clock or
// what is wanted have changed, and asks for a new certificate when it is time,
// one attempt at once. All but ask is called from the goroutine of run.
type keeper struct {
	log *slog.Logger
	// look reads the files and puts what it finds into use.
	look func(now time.Time) view
	// ask gets a new certificate; it runs in a goroutine of its own. What it
	// returns, also with an error, is called from run: it writes.
	ask  func(ctx context.Context, waiting func(request string)) (keep func(now time.Time) error, err error)
	wake chan struct{} // one slot
	// blind: no inotify and no timerfd. Time of tests does not pass while
	// somebody reads a file descriptor.
	blind bool

	ready   chan struct{}
	isReady bool
	mu      sync.Mutex
	state   State

	at        *attempt
	wants     string // of the latest look
	failures  int
	errors    int       // all of them
	notBefore time.Time // of the next attempt
	lastErr   error
}

// attempt is a request that is under way.
type attempt struct {
	wants  string
	cancel context.CancelFunc
	done   chan outcome // one slot
}

type outcome struct {
	keep func(time.Time) error
	err  error
}

func newKeeper(what string, log *slog.Logger, blind bool) *keeper {
	return &keeper{
		log: log.With("certificate", what), blind: blind,
		wake: make(chan struct{}, 1), ready: make(chan struct{}),
	}
}

// run works until ctx ends, and waits for the attempt that is under way.
func (k *keeper) run(ctx context.Context) error {
	var files *watcher
	if !k.blind {
		var err error
		if files, err = newWatcher(k.wake); err != nil {
			return err
		}
		defer files.close()
		if clock, err := newClock(k.wake); err == nil {
			defer clock.close()
		} else {
			k.log.Warn("a clock that is set will not be noticed at once", "err", err)
		}
	}
	defer k.giveUp()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		v := k.look(now)
		if files != nil {
			if added, err := files.follow(v.paths); added {
				poke(k.wake) // something may have changed before it was watched
			} else if err != nil {
				v.problem = errors.Join(v.problem, err)
			}
		}
		next := k.proceed(ctx, v, now)
		timer.Stop()
		var due <-chan time.Time
		if !next.IsZero() {
			timer.Reset(time.Until(next))
			due = timer.C
		}
		if err := k.pass(ctx, due); err != nil {
			return err
		}
	}
}

// pass waits until there is a reason to look again.
func (k *keeper) pass(ctx context.Context, due <-chan time.Time) error {
	var done chan outcome
	if k.at != nil {
		done = k.at.done
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-k.wake:
	case <-due:
	case o := <-done:
		k.finish(o)
	}
	return nil
}

// proceed starts or gives up an attempt, and returns when to come again by
// itself; zero: not.
func (k *keeper) proceed(ctx context.Context, v view, now time.Time) time.Time {
	due := !v.renew.IsZero() && !now.Before(v.renew)
	if !due {
		k.failures, k.lastErr = 0, nil
	}
	if k.at != nil && (!due || k.at.wants != v.wants) {
		k.giveUp()
	}
	if k.wants != v.wants { // somebody has changed something: try that at once
		k.wants, k.failures, k.notBefore, k.lastErr = v.wants, 0, time.Time{}, nil
	}
	next := v.renew
	if next.Before(k.notBefore) && !next.IsZero() {
		next = k.notBefore
	}
	switch {
	case k.at != nil:
		next = time.Time{}
	case due && !now.Before(k.notBefore):
		k.start(ctx, v.wants)
		next = time.Time{}
	}
	k.show(v, next)
	return next
}

func (k *keeper) start(ctx context.Context, wants string) {
	ctx, cancel := context.WithCancel(ctx)
	at := &attempt{wants, cancel, make(chan outcome, 1)}
	k.at = at
	go func() {
		keep, err := k.ask(ctx, k.waiting)
		at.done <- outcome{keep, err}
	}()
}

// giveUp ends the attempt that is under way, if any, and waits for its end. The
// request stays with the cluster, which sweeps it.
func (k *keeper) giveUp() {
	if k.at == nil {
		return
	}
	k.at.cancel()
	<-k.at.done
	k.at = nil
	k.mu.Lock()
	k.state.Request = ""
	k.mu.Unlock()
}

// finish keeps what an attempt has brought.
func (k *keeper) finish(o outcome) {
	k.at.cancel()
	k.at = nil
	now := time.Now()
	if o.keep != nil {
		o.err = errors.Join(o.err, o.keep(now))
	}
	// A success counts until the next look finds that nothing is due: with a
	// clock that is ahead, each new certificate is due at once.
	k.failures++
	k.notBefore = now.Add(pause(k.failures, isRefused(o.err)))
	k.lastErr = o.err
	if o.err == nil {
		k.log.Info("new certificate")
	} else {
		k.errors++
	}
}

// waiting notes the request that has to be approved.
func (k *keeper) waiting(request string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state.Request != request {
		k.state.Request, k.state.Since = request, time.Now()
		k.log.Info("waiting for a certificate signing request to be approved", "request", request)
	}
}

// show publishes the state and tells of a problem once.
func (k *keeper) show(v view, next time.Time) {
	s := State{Renew: v.renew, Failures: k.failures, Errors: k.errors, Next: next}
	if v.leaf != nil {
		s.Subject, s.NotBefore, s.NotAfter = v.leaf.Subject.String(), v.leaf.NotBefore, v.leaf.NotAfter
	}
	problem := v.problem
	switch {
	case k.lastErr != nil:
		problem = errors.Join(problem, k.lastErr)
	case k.failures > 1:
		problem = errors.Join(problem, errors.New("a new certificate is due for renewal at once: is the clock right?"))
	}
	if problem != nil {
		s.Problem = problem.Error()
	}
	k.mu.Lock()
	before := k.state
	if k.at != nil {
		s.Request, s.Since = before.Request, before.Since
	}
	k.state = s
	k.mu.Unlock()
	switch {
	case s.Problem != "" && s.Problem != before.Problem:
		k.log.Warn("certificate needs attention", "problem", s.Problem)
	case s.Problem == "" && before.Problem != "":
		k.log.Info("certificate is well again")
	}
	if v.usable && !k.isReady {
		k.isReady = true
		close(k.ready)
	}
}

func (k *keeper) get() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}
