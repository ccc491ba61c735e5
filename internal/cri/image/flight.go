package image

import (
	"context"
	"errors"
	"sync"
)

// flights share work: all that ask for the same key while it is under way wait
// for one run of it.
type flights struct {
	mu      sync.Mutex
	running map[any]*flight
}

type flight struct {
	cancel  context.CancelCauseFunc
	done    chan struct{} // closed after img and err are set
	img     Image
	err     error
	waiters int
	watch   map[*func(Progress)]struct{}
	last    Progress
}

// errAbandoned ends a run for which nobody waits any more.
var errAbandoned = errors.New("nobody waits for it any more")

// do runs work under key, or joins a run of it. The run's context has the
// values of the first caller's, but not its cancellation: the run is cancelled
// when the last caller has gone, and has ended when that one returns.
func (fs *flights) do(ctx context.Context, key any, progress func(Progress), work func(context.Context, func(Progress)) (Image, error)) (Image, error) {
	fs.mu.Lock()
	f := fs.running[key]
	if f == nil {
		run, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		f = &flight{cancel: cancel, done: make(chan struct{}), watch: map[*func(Progress)]struct{}{}}
		fs.running[key] = f
		go func() {
			defer cancel(nil)
			img, err := work(run, func(p Progress) { fs.tell(f, p) })
			fs.mu.Lock()
			defer fs.mu.Unlock()
			f.img, f.err = img, err
			fs.leave(key, f)
			close(f.done)
		}()
	}
	f.waiters++
	if progress != nil {
		f.watch[&progress] = struct{}{}
		if f.last != (Progress{}) {
			progress(f.last)
		}
	}
	fs.mu.Unlock()

	select {
	case <-f.done:
		return f.img, f.err
	case <-ctx.Done():
	}
	fs.mu.Lock()
	delete(f.watch, &progress)
	f.waiters--
	last := f.waiters == 0
	if last {
		// Who comes now must not join a run that is being cancelled.
		fs.leave(key, f)
		f.cancel(errAbandoned)
	}
	fs.mu.Unlock()
	if last {
		<-f.done
	}
	return Image{}, context.Cause(ctx)
}

// leave takes f off the map; the lock is held.
func (fs *flights) leave(key any, f *flight) {
	if fs.running[key] == f {
		delete(fs.running, key)
	}
}

func (fs *flights) tell(f *flight, p Progress) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.last = p
	for w := range f.watch {
		(*w)(p)
	}
}
