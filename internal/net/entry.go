package net

import (
	"net/netip"
	"slices"
)

// Kind says by what an address belongs to a service. Of two claims the smaller
// kind wins: nobody takes a cluster IP away by naming it an external one.
type Kind uint8

// The kinds.
const (
	ClusterIP Kind = iota
	NodePort
	Balancer // an address of a load balancer that delivers packets as they came
	External // one of spec.externalIPs
	health   // a port on which the node answers load balancers
)

func (k Kind) String() string {
	return [...]string{"clusterIP", "nodePort", "load balancer address", "externalIP", "healthCheckNodePort"}[k]
}

// Front is an address of a service besides its cluster IP.
type Front struct {
	Address Address
	Kind    Kind
}

// Entry is one port of one service in one family: all that a backend has to
// know to serve it. It is never changed.
type Entry struct {
	Service Key
	Port    string  // the port's name, often empty
	Addr    Address // cluster IP and port: unique in the table
	Fronts  []Front // sorted

	Cluster []netip.AddrPort // endpoints of policy Cluster, sorted
	Local   []netip.AddrPort // and of policy Local, if a policy is
	Serving []netip.AddrPort // of UDP only: all endpoints that answer, chosen or not, sorted; a flow to one of them goes on
	Here    []netip.Addr     // addresses of endpoints on this node: they may call themselves

	Affinity     uint32         // seconds for which a client keeps its endpoint; 0: none
	Ranges       []netip.Prefix // who may call Balancer addresses, if Ranged
	Ranged       bool
	LocalInside  bool // internalTrafficPolicy Local
	LocalOutside bool // externalTrafficPolicy Local
}

// Verdict is what becomes of a new connection.
type Verdict uint8

// The verdicts.
const (
	Refuse    Verdict = iota // there are no endpoints: say so at once
	Drop                     // there are, but not on this node: be silent, so that the caller tries elsewhere
	ToCluster                // one of Entry.Cluster
	ToLocal                  // one of Entry.Local
)

func (v Verdict) String() string {
	return [...]string{"refuse", "drop", "cluster", "local"}[v]
}

// ForClusterIP is the verdict for who calls the cluster IP.
func (e *Entry) ForClusterIP() Verdict { return e.verdict(e.LocalInside) }

// ForOutside is the verdict for who calls a Front from outside the cluster.
func (e *Entry) ForOutside() Verdict { return e.verdict(e.LocalOutside) }

// ForInside is the verdict for a pod or the node itself that calls a Front: as
// if it had gone out to the load balancer and come in at some node.
func (e *Entry) ForInside() Verdict { return e.verdict(false) }

func (e *Entry) verdict(localOnly bool) Verdict {
	switch {
	case len(e.Cluster) == 0 && len(e.Local) == 0:
		return Refuse
	case !localOnly:
		return ToCluster
	case len(e.Local) == 0:
		return Drop
	}
	return ToLocal
}

// Name is the service's port as people write it: namespace/name:port.
func (e *Entry) Name() string {
	if e.Port == "" {
		return e.Service.String()
	}
	return e.Service.String() + ":" + e.Port
}

func (e *Entry) equal(o *Entry) bool {
	return e.Service == o.Service && e.Port == o.Port && e.Addr == o.Addr &&
		e.Affinity == o.Affinity && e.Ranged == o.Ranged &&
		e.LocalInside == o.LocalInside && e.LocalOutside == o.LocalOutside &&
		slices.Equal(e.Fronts, o.Fronts) && slices.Equal(e.Cluster, o.Cluster) &&
		slices.Equal(e.Local, o.Local) && slices.Equal(e.Serving, o.Serving) && slices.Equal(e.Here, o.Here) && slices.Equal(e.Ranges, o.Ranges)
}

// Health is what a load balancer is told that asks this node for a service.
type Health struct {
	Service Key
	Port    uint16
	Local   int // ready endpoints on this node; none means: send nothing here
}
