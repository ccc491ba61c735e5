package proxy

import (
	"slices"

	"nodeagent/internal/net"
)

// tell says what a diff brings besides rules: what is wrong with services, and
// what load balancers are answered.
func (p *Proxy) tell(d *net.Diff) {
	p.state.diff(d)
	if d.Ranges {
		p.cfg.Logger.Info("what no service has of these ranges is refused", "ranges", p.model.Table().Ranges())
	}
	for _, k := range d.Findings {
		p.tellFindings(k)
	}
	for _, k := range d.Health {
		h, ok := p.model.Table().Health[k]
		p.checks.set(k, h, p.uids[k], ok)
	}
}

// tellFindings makes an event of each finding that was not told of already. The
// events room counts and limits them.
func (p *Proxy) tellFindings(k net.Key) {
	before, now := p.told[k], p.model.Findings(k)
	if len(now) == 0 {
		delete(p.told, k)
		return
	}
	p.told[k] = now
	for _, f := range now {
		if slices.Contains(before, f) {
			continue
		}
		p.cfg.Logger.Warn("a service does not get all that it asks for", "service", k, "reason", f.Reason, "why", f.Message)
		if p.cfg.Teller != nil {
			p.cfg.Teller.Service(k, p.uids[k], string(f.Reason), f.Message)
		}
	}
}
