package cluster

import "context"

// Peer is a component that is made by its first start, and may be asked before.
type Peer struct {
	make func(context.Context) (*Component, error)
	c    *Component
}

// NewPeer returns one that is made by a function such as a Cluster's Kubelet.
func NewPeer(make func(context.Context) (*Component, error)) *Peer { return &Peer{make: make} }

// Start makes it, or starts it again with what it had.
func (p *Peer) Start(ctx context.Context) (err error) {
	if p.c != nil {
		return p.c.Start(ctx)
	}
	p.c, err = p.make(ctx)
	return err
}

func (p *Peer) begun() bool { return p.c != nil && p.c.Process != nil }

// Pid is that of the running program; it has begun.
func (p *Peer) Pid() int { return p.c.Pid }

// Kill ends it, if it has begun.
func (p *Peer) Kill() error {
	if !p.begun() {
		return nil
	}
	return p.c.Kill()
}

// LogTail is the end of its log; empty before it has begun.
func (p *Peer) LogTail(lines int) string {
	if !p.begun() {
		return ""
	}
	return p.c.LogTail(lines)
}
