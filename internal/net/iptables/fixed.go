package iptables

// fixed are the chains that are the same however many services there are.
func (l *layout) fixed() []chain {
	local := "-m addrtype --dst-type LOCAL"
	return []chain{
		{nat, l.name(services), append(l.toPick(),
			"-j "+l.ips.root.name,
			words(local, "-j", l.name(nodePorts)))},
		{nat, l.name(picks), l.marked(l.draw())},
		{nat, l.name(nodePorts), l.served(l.ports)},
		{nat, l.name(outsiders), l.markOutsiders()},
		{nat, l.name(postrouting), []string{
			words("-m conntrack --ctstate DNAT", "-j", l.hair.root.name),
			words("-m mark ! --mark", l.mark, "-j RETURN"),
			words("-j MARK --set-xmark", l.bit()+"/0x0"),
			masquerade,
		}},
		{nat, l.name(reached), []string{masquerade}},
		{filter, l.name(closed), append([]string{
			"-m conntrack --ctstate DNAT -j RETURN",
			"-j " + l.closed.root.name,
			words(local, "-j", l.name(closedNodes)),
			"-j " + l.rest.root.name,
		}, l.nobodys()...)},
		{filter, l.name(closedNodes), l.served(l.closedPorts)},
		{filter, l.name(refuse), []string{
			// Errors of ICMP are limited in number: a second caller would hang.
			"-p tcp -j REJECT --reject-with tcp-reset",
			"-j REJECT --reject-with " + l.f.refuse,
		}},
		{filter, l.name(accept), l.forwarded()},
	}
}

// nobodys refuse what is asked of an address that cluster IPs are drawn from, unless it is
// the node's own.
func (l *layout) nobodys() (out []string) {
	for _, p := range l.ranges {
		out = append(out, words(within("-d", p), "-m addrtype ! --dst-type LOCAL", "-g", l.name(refuse)))
	}
	return out
}

// forwarded does as kube-proxy. What belongs to no connection would not be
// translated back, and who gets it would reset a connection that is sound.
func (l *layout) forwarded() []string {
	out := []string{
		words("-m mark --mark", l.mark, "-j ACCEPT"),
		"-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
	}
	if l.invalid {
		return out
	}
	return append([]string{"-m conntrack --ctstate INVALID -j DROP"}, out...)
}

const masquerade = "-j MASQUERADE --random-fully"

// served leads packets to those of the node's addresses that serve node ports
// into a tree.
func (l *layout) served(t *tree) []string {
	out := []string{words(within("-d", l.f.loopback), "-j RETURN")}
	if l.anyNode {
		return append(out, "-j "+t.root.name)
	}
	for _, p := range l.nodePorts {
		out = append(out, words(within("-d", p), "-j", t.root.name))
	}
	return out
}

func (l *layout) markOutsiders() []string {
	var out []string
	if !l.all {
		for _, pod := range l.fromPods {
			out = append(out, words(pod, "-j RETURN"))
		}
	}
	return append(out, l.setMark())
}

// bit is the mark's bit alone.
func (l *layout) bit() string { return l.mark[:(len(l.mark)-1)/2] }

func (l *layout) setMark() string { return "-j MARK --set-xmark " + l.mark }

// kernels are the kernel's own chains that lead to ours.
var kernels = []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

// jump is a rule in one of the kernel's own chains.
type jump struct{ table, from, rule string }

// jumps come first in the kernel's own chains.
func (l *layout) jumps() []jump {
	serve := words(comment("nodeagent: service addresses"), "-j", l.name(services))
	shut := words("-m conntrack --ctstate NEW", comment("nodeagent: closed service addresses"), "-j", l.name(closed))
	return []jump{
		{nat, "PREROUTING", serve},
		{nat, "OUTPUT", serve},
		{nat, "POSTROUTING", words(comment("nodeagent: masquerade for services"), "-j", l.name(postrouting))},
		{filter, "FORWARD", words(comment("nodeagent: forward to services"), "-j", l.name(accept))},
		{filter, "INPUT", shut},
		{filter, "FORWARD", shut},
		{filter, "OUTPUT", shut},
	}
}
