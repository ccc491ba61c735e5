package iptables

import (
	"slices"

	"nodeagent/internal/net"
)

// chains are those of one entry.
func (l *layout) chains(e *net.Entry) []chain {
	if l.slotted(e) {
		return nil
	}
	in, open := e.ForClusterIP(), l.opens(e)
	var out []chain
	if in == net.ToCluster || open {
		out = append(out, l.pool(e, toCluster, e.Cluster, l.lead(e, in == net.ToCluster))...)
	}
	if in == net.ToLocal || (open && e.ForOutside() == net.ToLocal) {
		out = append(out, l.pool(e, toLocal, e.Local, l.lead(e, in == net.ToLocal))...)
	}
	if open {
		out = append(out, chain{nat, l.chainOf(outside, e), l.outsideRules(e)})
	}
	if open && gated(e) && slices.ContainsFunc(e.Fronts, isBalancer) {
		out = append(out, chain{nat, l.chainOf(gate, e), l.gateRules(e)})
	}
	return out
}

func isBalancer(x net.Front) bool { return x.Kind == net.Balancer }

// gated tells whether addresses of load balancers are not open to everybody.
func gated(e *net.Entry) bool { return e.Ranged }

// opens tells whether anybody is served at an address besides the cluster IP.
func (l *layout) opens(e *net.Entry) bool {
	return e.ForInside() != net.Refuse && slices.ContainsFunc(e.Fronts, func(x net.Front) bool { return leads(e, x) })
}

// leads tells whether anybody may come in at a front.
func leads(e *net.Entry, x net.Front) bool {
	return x.Kind != net.Balancer || !gated(e) || len(e.Ranges) > 0
}

// lead is what comes before an endpoint is picked: who calls the cluster IP from
// outside the cluster must be answered through this node.
func (l *layout) lead(e *net.Entry, clusterIP bool) []string {
	if !clusterIP || (len(l.fromPods) == 0 && !l.all) {
		return nil
	}
	return []string{words(at("-d", e.Addr.IP), "-j", l.name(outsiders))}
}

// outsideRules follow the policy for addresses other than the cluster IP.
func (l *layout) outsideRules(e *net.Entry) []string {
	svc := l.chainOf(toCluster, e)
	if !e.LocalOutside {
		return []string{l.setMark(), "-g " + svc}
	}
	const node = "-m addrtype --src-type LOCAL"
	var out []string
	for _, pod := range l.fromPods {
		out = append(out, words(pod, comment("a pod: as if it came in anywhere"), "-g", svc))
	}
	out = append(out,
		words(node, comment("the node itself"), l.setMark()),
		words(node, comment("the node itself"), "-g", svc))
	if e.ForOutside() == net.ToLocal {
		out = append(out, "-g "+l.chainOf(toLocal, e))
	}
	return out
}

func (l *layout) gateRules(e *net.Entry) []string {
	var out []string
	for _, p := range e.Ranges {
		out = append(out, words(within("-s", p.Masked()), "-g", l.chainOf(outside, e)))
	}
	return out
}

// leaves are an entry's items in the trees.
func (l *layout) leaves(e *net.Entry) []leaf {
	var out []leaf
	itself := item{e.Addr, net.ClusterIP, e}
	switch v := e.ForClusterIP(); {
	case v == net.Drop:
		out = append(out, leaf{l.closed, itself})
	case l.slotted(e):
		out = append(out, leaf{l.names, itself})
		for i := range inside(e) {
			out = append(out, leaf{l.slots[i], itself})
		}
	case v != net.Refuse:
		out = append(out, leaf{l.ips, itself})
	}
	for _, x := range e.Fronts {
		it, open, shut := item{x.Address, x.Kind, e}, l.ips, l.closed
		if x.Kind == net.NodePort {
			open, shut = l.ports, l.closedPorts
		}
		if e.ForInside() != net.Refuse && leads(e, x) {
			out = append(out, leaf{open, it})
		}
		if v := e.ForOutside(); v == net.Refuse || v == net.Drop || (x.Kind == net.Balancer && gated(e)) {
			out = append(out, leaf{shut, it})
		}
	}
	return out
}

// to matches packets to an item's address.
func to(x item) string {
	ip := ""
	if x.kind != net.NodePort {
		ip = at("-d", x.at.IP)
	}
	return words(ip, over(x.at.Proto), dport(x.at.Proto, port(x.at.Port)))
}

func about(x item) string {
	if x.kind == net.ClusterIP {
		return comment(x.e.Name() + " cluster IP")
	}
	return comment(x.e.Name() + " " + x.kind.String())
}

// open leads packets to an address to the service's chain.
func (l *layout) open(x item) []string {
	kind := outside
	switch {
	case x.kind == net.ClusterIP && x.e.ForClusterIP() == net.ToLocal:
		kind = toLocal
	case x.kind == net.ClusterIP:
		kind = toCluster
	case x.kind == net.Balancer && gated(x.e):
		kind = gate
	}
	return []string{words(to(x), about(x), "-j", l.chainOf(kind, x.e))}
}

// shut says what becomes of packets to an address that were led nowhere.
func (l *layout) shut(x item) []string {
	v := x.e.ForOutside()
	if x.kind == net.ClusterIP {
		v = x.e.ForClusterIP()
	}
	where := words(to(x), about(x))
	switch {
	case v != net.Refuse:
		return []string{where + " -j DROP"}
	case x.kind != net.Balancer || !gated(x.e):
		return []string{where + " -g " + l.name(refuse)}
	}
	var out []string
	for _, p := range x.e.Ranges {
		out = append(out, words(within("-s", p.Masked()), where, "-g", l.name(refuse)))
	}
	return append(out, where+" -j DROP")
}

// refused is of a cluster IP: what got here calls a port that no service has, or
// one that has no endpoints.
func (l *layout) refused(x item) []string {
	return []string{words(at("-d", x.at.IP), "-g", l.name(refuse))}
}

// itself is of an endpoint of this node that reached itself: it would not know
// the answer of its own address.
func (l *layout) itself(x item) []string {
	return []string{words(at("-s", x.at.IP), at("-d", x.at.IP), "-g", l.name(reached))}
}
