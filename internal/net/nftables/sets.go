package nftables

import "github.com/google/nftables"

// The sets and maps, by their names without the family's digit.
const (
	services     = "services"           // address -> number in picks
	endpoints    = "endpoints"          // address and number or name -> endpoint
	unserved     = "unserved"           // address -> number in reasons
	nodePorts    = "nodeports"          // node port -> number in picks
	nodePortEnds = "nodeport-endpoints" // node port and number or name -> endpoint
	unservedNP   = "unserved-nodeports" // node port -> number in reasons
	picks        = "picks"              // number -> chain that picks an endpoint
	reasons      = "reasons"            // number -> why not, or who may
	sourceRanges = "source-ranges"      // address and who may call it
	clusterIPs   = "cluster-ips"        // all cluster IPs: what is not served there is refused
	serviceRange = "service-ranges"     // of these cluster IPs are drawn: what nobody has is refused
	hairpin      = "hairpin"            // endpoints on this node: they may call themselves
	choices      = "choices"            // with affinity: address and number -> name of an endpoint
	nodePortName = "nodeport-choices"   // with affinity: node port and number -> name of an endpoint
	affinity     = "affinity"           // client and address -> name of an endpoint, for a time
	affinityHere = "affinity-local"     // the same for endpoints of policy Local
	affinitySize = 262144               // clients that each remembers at most
)

// setNames is all of them, in the order in which their elements are written:
// endpoints before what leads to them.
var setNames = []string{
	endpoints, nodePortEnds, choices, nodePortName, sourceRanges, hairpin, clusterIPs, serviceRange, picks, reasons, services, nodePorts, unserved, unservedNP,
	affinity, affinityHere,
}

// setsOf makes them for both families, each with a number of its own: the
// library else counts in a variable that other users of it change, too.
func setsOf(t *nftables.Table) map[string]*nftables.Set {
	out := map[string]*nftables.Set{}
	for _, f := range families {
		for _, name := range setNames {
			s := f.set(name)
			s.Table, s.Name, s.ID = t, f.name(name), uint32(len(out)+1)
			out[s.Name] = s
		}
	}
	return out
}

func (f fam) set(name string) *nftables.Set {
	addr := nftables.TypeIPAddr
	if f.words == 4 {
		addr = nftables.TypeIP6Addr
	}
	proto, port, mark := nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeMark
	key := nftables.MustConcatSetType
	switch name {
	case services:
		return &nftables.Set{IsMap: true, KeyType: key(addr, proto, port), DataType: mark, Comment: "service address: which of the picks"}
	case endpoints:
		return &nftables.Set{IsMap: true, KeyType: key(addr, proto, port, mark), DataType: key(addr, port), Comment: "service address and number: endpoint"}
	case nodePorts:
		return &nftables.Set{IsMap: true, KeyType: key(proto, port), DataType: mark, Comment: "node port: which of the picks"}
	case nodePortEnds:
		return &nftables.Set{IsMap: true, KeyType: key(proto, port, mark), DataType: key(addr, port), Comment: "node port and number: endpoint"}
	case unserved:
		return &nftables.Set{IsMap: true, KeyType: key(addr, proto, port), DataType: mark, Comment: "service address that not everybody is served at: which of the reasons"}
	case unservedNP:
		return &nftables.Set{IsMap: true, KeyType: key(proto, port), DataType: mark, Comment: "node port that not everybody is served at: which of the reasons"}
	case picks:
		return &nftables.Set{IsMap: true, KeyType: mark, DataType: nftables.TypeVerdict, Comment: "number: how an endpoint is picked"}
	case reasons:
		return &nftables.Set{IsMap: true, KeyType: mark, DataType: nftables.TypeVerdict, Comment: "number: why an address is closed, or to whom it is open"}
	case sourceRanges:
		return &nftables.Set{Interval: true, Concatenation: true, KeyType: key(addr, proto, port, addr), Comment: "service address and who may call it"}
	case clusterIPs:
		return &nftables.Set{KeyType: addr, Comment: "all cluster IPs"}
	case serviceRange:
		// By all protocols: the kernel takes ranges that way in keys of several parts.
		return &nftables.Set{Interval: true, Concatenation: true, KeyType: key(addr, proto), Comment: "ranges of which cluster IPs are drawn"}
	case hairpin:
		return &nftables.Set{KeyType: key(addr, addr), Comment: "endpoints of this node, which may reach themselves"}
	case choices:
		return &nftables.Set{IsMap: true, KeyType: key(addr, proto, port, mark), DataType: mark, Comment: "service address with affinity and number: name of an endpoint"}
	case nodePortName:
		return &nftables.Set{IsMap: true, KeyType: key(proto, port, mark), DataType: mark, Comment: "node port with affinity and number: name of an endpoint"}
	}
	// affinity and affinityHere: what packets write
	return &nftables.Set{
		IsMap: true, Dynamic: true, HasTimeout: true, Size: affinitySize,
		KeyType: key(addr, addr, proto, port), DataType: mark, Comment: "client and service address: name of its endpoint",
	}
}
