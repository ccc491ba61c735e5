package ipvs

import (
	"cmp"
	"net/netip"

	"nodeagent/internal/net"
)

// set is a kind of set; the kernel has one of each for each family.
type set uint8

// The sets. In the order in which they are written; what is removed goes in the
// reverse order.
const (
	ranges  set = iota // address and who may call it
	gated              // addresses that only those may call
	notNode            // of these, addresses that the node itself may not call
	refuse             // addresses without any endpoint
	drop               // addresses that nobody is served at here: the endpoints are elsewhere
	inside             // the same, for callers from outside the cluster
	masq               // addresses of which every caller is masqueraded
	cluster            // cluster IPs: a caller that is no pod is masqueraded
	hairpin            // endpoints of this node, which may reach themselves
	ips                // addresses of the device: what is not served there is refused
	local              // addresses of policy Local: the mark of their other server
	served             // addresses of virtual servers
	setKinds
)

// form is how the kernel keeps a set.
type form struct{ name, kind string }

var forms = [setKinds]form{
	ranges: {"RANGES", "hash:ip,port,net"}, gated: {"GATED", "hash:ip,port"}, notNode: {"NOT-NODE", "hash:ip,port"}, refuse: {"REFUSE", "hash:ip,port"},
	drop: {"DROP", "hash:ip,port"}, inside: {"INSIDE", "hash:ip,port"}, masq: {"MASQ", "hash:ip,port"},
	cluster: {"CLUSTER-IP", "hash:ip,port"}, hairpin: {"HAIRPIN", "hash:net,net"}, ips: {"IPS", "hash:ip"},
	local: {"LOCAL", "hash:ip,port"}, served: {"SERVED", "hash:ip,port"},
}

// marked tells whether elements of the set bear a mark.
func (s set) marked() bool { return s == local }

const setPrefix = "NODEAGENT-"

// name is that in the kernel, with the family as kube-proxy has it.
func (s set) name(v6 bool) string {
	if v6 {
		return setPrefix + "6-" + forms[s].name
	}
	return setPrefix + forms[s].name
}

// element is one of a set; its address says of which family. Port and protocol
// are zero where the set has addresses alone.
type element struct {
	set set
	at  net.Address
	who netip.Prefix // of ranges and hairpin
}

func (e element) name() string { return e.set.name(e.at.IP.Is6()) }

func (e element) compare(o element) int {
	return cmp.Or(cmp.Compare(e.set, o.set), e.at.IP.Compare(o.at.IP), cmp.Compare(e.at.Port, o.at.Port),
		cmp.Compare(e.at.Proto, o.at.Proto), e.who.Addr().Compare(o.who.Addr()), cmp.Compare(e.who.Bits(), o.who.Bits()))
}

func onlyAddress(s set, a netip.Addr) element { return element{set: s, at: net.Address{IP: a}} }

func itself(a netip.Addr) element {
	return element{set: hairpin, at: net.Address{IP: a}, who: netip.PrefixFrom(a, a.BitLen())}
}
