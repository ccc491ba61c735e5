package server

import "sync"

// gate bounds what is under way, of all and of one user.
type gate struct {
	max, maxUser int

	mu  sync.Mutex
	all int
	by  map[string]int
}

func newGate(limit, user int) *gate {
	return &gate{max: limit, maxUser: user, by: map[string]int{}}
}

// enter returns how to leave, which is done once; not ok: it is full.
func (g *gate) enter(user string) (leave func(), ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all >= g.max || g.by[user] >= g.maxUser {
		return nil, false
	}
	g.all++
	g.by[user]++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.all--
		if g.by[user]--; g.by[user] == 0 {
			delete(g.by, user)
		}
	}, true
}
