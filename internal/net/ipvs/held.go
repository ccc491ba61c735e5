package ipvs

import (
	"context"

	"nodeagent/internal/net"
)

// Held reads what the kernel holds for each address, whoever wrote it. It needs no Sync
// before, and changes nothing. IPVS has no comments: nobody can tell by it which service
// an address is of. A node port is one of the node's own addresses here.
func (b *Backend) Held(ctx context.Context) ([]net.Held, error) {
	if err := present(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	stop, err := b.open(ctx)
	if err != nil {
		return nil, b.end(err)
	}
	defer stop()
	there, err := b.sets.headers()
	if err != nil {
		return nil, b.end(err)
	}
	have := newHolding()
	for _, f := range families() {
		for k := range setKinds {
			if h, ok := there[k.name(f.v6)]; ok && h.kind == forms[k].kind {
				if err := b.sets.list(k, k.name(f.v6), have.elements); err != nil {
					return nil, b.end(err)
				}
			}
		}
	}
	if have.servers, err = b.readServers(); err != nil {
		return nil, b.end(err)
	}
	return net.Tidy(have.held()), nil
}

// held puts servers and elements together by address. Those of marks are those of the
// addresses that have the mark.
func (h holding) held() map[string]*net.Held {
	out := map[string]*net.Held{}
	at := func(a net.Address) *net.Held {
		if out[a.String()] == nil {
			out[a.String()] = &net.Held{Address: a.String()}
		}
		return out[a.String()]
	}
	lead := func(a net.Address, p pool) {
		for e, weight := range p.ends {
			if weight > 0 { // the rest only end their connections
				at(a).Endpoints = append(at(a).Endpoints, e)
			}
		}
	}
	for s, p := range h.servers {
		if s.mark == 0 {
			at(s.at)
			lead(s.at, p)
		}
	}
	for x, mark := range h.elements {
		switch x.set {
		case refuse:
			at(x.at).Closed = "refuse"
		case drop:
			at(x.at).Closed = "drop"
		case inside:
			at(x.at).Closed = "inside-only"
		case gated:
			at(x.at).Closed = "source-ranges"
		case local:
			for s, p := range h.servers {
				if s.mark == mark && s.at.IP.Is4() == x.at.IP.Is4() {
					lead(x.at, p)
				}
			}
		}
	}
	return out
}
