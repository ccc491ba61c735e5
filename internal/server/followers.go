package server

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// followers are those who wait for the end of a container. A change of its pod
// only wakes; whether it still runs is asked of the runtime.
type followers struct {
	running func(uid types.UID, container string) bool

	mu sync.Mutex
	by map[types.UID]map[*follower]struct{}
}

type follower struct {
	container string
	end       context.CancelFunc
}

// follow returns a context that is done when the container does not run any more,
// or stop was called.
func (f *followers) follow(uid types.UID, container string) (ended context.Context, stop func()) {
	ended, end := context.WithCancel(context.Background())
	me := &follower{container, end}
	f.mu.Lock()
	if f.by == nil {
		f.by = map[types.UID]map[*follower]struct{}{}
	}
	if f.by[uid] == nil {
		f.by[uid] = map[*follower]struct{}{}
	}
	f.by[uid][me] = struct{}{}
	f.mu.Unlock()
	if !f.running(uid, container) { // after the entry: an end in between is told
		end()
	}
	return ended, func() {
		end()
		f.mu.Lock()
		defer f.mu.Unlock()
		if delete(f.by[uid], me); len(f.by[uid]) == 0 {
			delete(f.by, uid)
		}
	}
}

// tell is called with each pod that changed, from one goroutine.
func (f *followers) tell(p *corev1.Pod, _ bool) error {
	f.mu.Lock()
	of := make([]*follower, 0, len(f.by[p.UID]))
	for one := range f.by[p.UID] {
		of = append(of, one)
	}
	f.mu.Unlock()
	for _, one := range of {
		if !f.running(p.UID, one.container) {
			one.end()
		}
	}
	return nil
}

// container finds a run of a container by its id.
func (a *NodeAPI) container(uid types.UID, id string) (pod.Container, bool) {
	for _, c := range a.cfg.Runtime.Observe(uid).Containers {
		if c.ID == id {
			return c, true
		}
	}
	return pod.Container{}, false
}

func (a *NodeAPI) running(uid types.UID, id string) bool {
	c, ok := a.container(uid, id)
	return ok && c.State == pod.ContainerRunning
}
