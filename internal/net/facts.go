package net

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Facts are what a model knows of one Service, for who explains. They are values that go
// over a wire, and keep nothing of the model.
type Facts struct {
	Namespace string          `json:"namespace"`
	Name      string          `json:"name"`
	Seen      bool            `json:"seen"`
	Ignored   string          `json:"ignored,omitempty"` // why no rules are made for it
	Addresses []AddressFacts  `json:"addresses,omitempty"`
	Slices    []string        `json:"slices,omitempty"` // names of its EndpointSlices
	Endpoints []EndpointFacts `json:"endpoints,omitempty"`
	Findings  []Finding       `json:"findings,omitempty"`
	Health    *HealthFacts    `json:"health,omitempty"`
}

// AddressFacts are what becomes of who calls one address of it.
type AddressFacts struct {
	Address   string           `json:"address"` // as Address.String has it
	Port      string           `json:"port,omitempty"`
	Kind      string           `json:"kind"`
	Inside    string           `json:"inside"`  // verdict for pods and the node
	Outside   string           `json:"outside"` // and for all others
	Endpoints []netip.AddrPort `json:"endpoints,omitempty"`
	Ranges    []netip.Prefix   `json:"sourceRanges,omitempty"`
	Ranged    bool             `json:"onlySourceRanges,omitempty"`
	Affinity  uint32           `json:"affinitySeconds,omitempty"`
}

// EndpointFacts are one endpoint as a slice has it.
type EndpointFacts struct {
	Address string `json:"address"`
	Slice   string `json:"slice"`
	State   string `json:"state"` // ready, draining or not ready
	Here    bool   `json:"onThisNode"`
	Chosen  bool   `json:"chosen"`
	Why     string `json:"why,omitempty"` // it is not chosen
}

// HealthFacts are what load balancers are told that ask this node.
type HealthFacts struct {
	Port  uint16 `json:"port"`
	Local int    `json:"localEndpoints"`
}

// Facts tells what is known of a Service, as of the last Take.
func (m *Model) Facts(k Key) Facts {
	out := Facts{Namespace: k.Namespace, Name: k.Name, Ignored: m.others[k]}
	g := m.groups[k]
	out.Seen = out.Ignored != "" || g != nil && g.svc != nil
	if g == nil {
		return out
	}
	out.Findings = slices.Clone(g.findings)
	chosen := map[netip.Addr]bool{}
	for _, e := range g.entries {
		out.Addresses = append(out.Addresses, e.facts()...)
		for _, a := range slices.Concat(e.Cluster, e.Local) {
			chosen[a.Addr()] = true
		}
	}
	some := slices.ContainsFunc(g.slices, func(s *slice) bool {
		return slices.ContainsFunc(s.ends, func(e endpoint) bool { return e.is.has(ready) })
	})
	for _, s := range g.slices {
		out.Slices = append(out.Slices, s.name)
		for _, e := range s.ends {
			out.Endpoints = append(out.Endpoints, g.endpointFacts(s, e, chosen[e.addr], some))
		}
	}
	if h, ok := m.table.Health[k]; ok {
		out.Health = &HealthFacts{h.Port, h.Local}
	}
	return out
}

// Names lists the Services that are known, as namespace/name, sorted.
func (m *Model) Names() []string {
	var out []string
	for k, g := range m.groups {
		if g.svc != nil {
			out = append(out, k.String())
		}
	}
	for k := range m.others {
		out = append(out, k.String())
	}
	slices.Sort(out)
	return out
}

// facts are an entry's addresses.
func (e *Entry) facts() []AddressFacts {
	v := e.ForClusterIP()
	out := []AddressFacts{{Address: e.Addr.String(), Port: e.Port, Kind: ClusterIP.String(), Inside: v.String(), Outside: v.String(), Endpoints: e.led(v), Affinity: e.Affinity}}
	for _, x := range e.Fronts {
		f := AddressFacts{
			Address: x.Address.String(), Port: e.Port, Kind: x.Kind.String(), Inside: e.ForInside().String(), Outside: e.ForOutside().String(),
			Endpoints: e.led(e.ForInside(), e.ForOutside()), Affinity: e.Affinity,
		}
		if x.Kind == Balancer && e.Ranged {
			f.Ranges, f.Ranged = slices.Clone(e.Ranges), true
		}
		out = append(out, f)
	}
	return out
}

// led are the endpoints to which verdicts lead, sorted, each once.
func (e *Entry) led(vs ...Verdict) []netip.AddrPort {
	var out []netip.AddrPort
	for _, v := range vs {
		switch v {
		case ToCluster:
			out = append(out, e.Cluster...)
		case ToLocal:
			out = append(out, e.Local...)
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out)
}

// endpointFacts says how an endpoint stands; some tells that any one is ready.
func (g *group) endpointFacts(s *slice, e endpoint, chosen, some bool) EndpointFacts {
	f := EndpointFacts{Address: e.addr.String(), Slice: s.name, State: "not ready", Here: e.is.has(local), Chosen: chosen}
	switch {
	case e.is.has(ready):
		f.State = "ready"
	case e.is.draining():
		f.State = "draining"
	}
	switch {
	case chosen:
	case g.svc == nil:
		f.Why = "no rules are made for the service"
	case f.State == "not ready":
		f.Why = "its pod is not Ready, or does not serve any more"
	case f.State == "draining" && some:
		f.Why = "its pod ends, and others are ready"
	case g.refused != "":
		f.Why = "the kernel refuses the rules of this service"
	case !g.matches(s):
		f.Why = "its slice has none of the service's ports: it has " + s.portNames()
	case len(g.entries) == 0:
		f.Why = "the service has no address to be served at"
	default:
		f.Why = "hints mean it for clients in another zone or on another node"
	}
	return f
}

// matches tells whether a slice has a port of the service.
func (g *group) matches(s *slice) bool {
	return slices.ContainsFunc(s.ports, func(p slicePort) bool {
		return slices.ContainsFunc(g.svc.ports, func(o servicePort) bool { return o.name == p.name && o.proto == p.proto })
	})
}

func (s *slice) portNames() string {
	if len(s.ports) == 0 {
		return "none"
	}
	var out []string
	for _, p := range s.ports {
		out = append(out, strconv.Quote(p.name)+" "+strconv.Itoa(int(p.port))+"/"+p.proto.String())
	}
	return strings.Join(out, ", ")
}
