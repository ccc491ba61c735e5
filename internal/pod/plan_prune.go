package pod

// prune removes what is older than the last dead run of each container, and the
// records of stopped sandboxes that no container refers to.
func (p *planner) prune() {
	for i := range p.o.Containers {
		c := &p.o.Containers[i]
		if c.State != ContainerExited {
			continue
		}
		if c != p.o.latest(c.Name) && c != p.o.previous(c.Name) || p.superseded(c) {
			p.do(Action{Kind: RemoveContainer, Container: c.ID, Name: c.Name})
		}
	}
	newest := p.o.newestSandbox()
	for _, s := range p.o.Sandboxes {
		if s.ID == newest.ID || p.o.anyOf(s.ID) {
			continue
		}
		if !s.Stopped {
			p.do(Action{Kind: StopSandbox, Sandbox: s.ID})
			continue
		}
		p.do(Action{Kind: RemoveSandbox, Sandbox: s.ID})
	}
}

// superseded: of two dead runs only the newest is kept.
func (p *planner) superseded(c *Container) bool {
	last := p.o.latest(c.Name)
	return c != last && last.State == ContainerExited
}
