package volume

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// locks let one call at a time work on a pod's volumes.
type locks struct {
	mu   sync.Mutex
	held map[types.UID]chan struct{} // closed when it is free again
}

// lock waits for the pod's lock, no longer than ctx.
func (l *locks) lock(ctx context.Context, uid types.UID) (unlock func(), err error) {
	for {
		free := l.try(uid)
		if free == nil {
			return func() { l.unlock(uid) }, nil
		}
		select {
		case <-free:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// try takes the lock, or returns what tells when it is free.
func (l *locks) try(uid types.UID) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if free, held := l.held[uid]; held {
		return free
	}
	if l.held == nil {
		l.held = map[types.UID]chan struct{}{}
	}
	l.held[uid] = make(chan struct{})
	return nil
}

func (l *locks) unlock(uid types.UID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.held[uid])
	delete(l.held, uid)
}
