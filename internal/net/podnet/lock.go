package podnet

import (
	"context"
	"sync"
)

// keyedLock is a lock a key, which exists while somebody holds or awaits it.
type keyedLock struct {
	mu   sync.Mutex
	held map[string]*lockEntry
}

type lockEntry struct {
	token chan struct{} // holds one item while the lock is free
	users int
}

// lock waits for the key or for the end of ctx.
func (k *keyedLock) lock(ctx context.Context, key string) (unlock func(), _ error) {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*lockEntry{}
	}
	e := k.held[key]
	if e == nil {
		e = &lockEntry{token: make(chan struct{}, 1)}
		e.token <- struct{}{}
		k.held[key] = e
	}
	e.users++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if e.users--; e.users == 0 {
			delete(k.held, key)
		}
	}
	select {
	case <-e.token:
		return func() { e.token <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
