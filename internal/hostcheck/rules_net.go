package hostcheck

import (
	"fmt"
	"net/netip"
	"strings"
)

func netRules() []rule {
	return []rule{
		{Kind{"NA-NET-001", "pod interfaces cannot be made", Error,
			"A pod's network is a veth pair, one end of it on a bridge.",
			"modprobe -a veth bridge", false}, noInterfaces},
		{Kind{"NA-NET-002", "no firewall that can translate addresses", Error,
			"Masquerading of pods and host ports need nf_tables, or iptables of the old kind.",
			"modprobe nf_tables, or install iptables for a kernel without it", false}, noFirewall},
		{Kind{"NA-NET-003", "the kernel lacks nf_tables", Info,
			"Host ports are made with iptables of the old kind: slower, and nobody is told when somebody flushes them.",
			"modprobe nf_tables", false}, oldFirewall},
		{Kind{"NA-NET-004", "br_netfilter is not loaded", Warning,
			"Packets between two pods of this node pass the bridge unseen by the firewall, so the answer of a service's pod to a pod beside it is not translated back. The kernel never loads it by itself.",
			"modprobe br_netfilter; echo br_netfilter >/etc/modules-load.d/nodeagent.conf", false}, noBridgeNF},
		{Kind{"NA-NET-005", "iptables of both kinds have rules", Warning,
			"A packet must pass both, and each tool sees its own half only: a rule that nobody finds drops packets.",
			"find who writes the fewer (iptables-nft-save, iptables-legacy-save), let it use the other kind (update-alternatives --config iptables), then flush what it left", false}, mixedFirewall},
		{Kind{"NA-NET-006", "the host's firewall drops forwarded packets", Warning,
			"Pods' packets are forwarded. The daemon lets its bridge through where the FORWARD chain's policy is DROP, but each reload of a firewall service takes that away for a while, and rules in tables of its own still hold.",
			"ufw: ufw default allow routed; firewalld: firewall-cmd --permanent --zone=trusted --add-interface=nodeagent0 && firewall-cmd --reload", false}, dropping},
		{Kind{"NA-NET-007", "the pods' addresses are in use", Error,
			"Packets to these pods, or to that network, go the wrong way.",
			"take a free range for podNetwork.cidrs", false}, overlap},
		{Kind{"NA-NET-008", "the resolver's address is loopback", Warning,
			"A pod that asks 127.0.0.1 asks itself; with a DNS server as a pod the query goes round for ever.",
			"set resolvConf to a file with real servers: /run/systemd/resolve/resolv.conf with systemd-resolved", false}, loopbackResolver},
		{Kind{"NA-NET-009", "there is no name server for pods", Warning,
			"Pods with dnsPolicy Default cannot resolve names.",
			"set resolvConf to a file that has nameserver lines", false}, noResolver},
		{Kind{"NA-NET-010", "no address of the node", Warning,
			"There is no default route, so pods on the host's network and status.hostIP get loopback.",
			"set --node-ip, or a default route", false}, noAddress},
		{Kind{"NA-NET-011", "connection tracking is nearly full", Warning,
			"When it is full, the kernel drops every new connection.",
			"sysctl -w net.netfilter.nf_conntrack_max=…, or find who opens so many: conntrack -L", false}, fullConntrack},
		{Kind{"NA-NET-012", "forwarding is off", Info,
			"The daemon switches it on with the first pod that needs it; what starts before sees another value.",
			"install sysctl.d/90-nodeagent.conf and run sysctl --system", false}, noForward},
	}
}

func noInterfaces(f *Facts) []hit {
	if f.Tried == nil {
		return nil
	}
	var all []hit
	for _, t := range []struct {
		name string
		err  *string
	}{{"bridge", f.Tried.Bridge}, {"veth", f.Tried.Veth}} {
		if t.err != nil && *t.err != "" {
			all = append(all, hit{seen: "making a " + t.name + " in a namespace of its own: " + *t.err, cure: "modprobe " + t.name})
		}
	}
	return all
}

func noFirewall(f *Facts) []hit {
	t := f.Tried
	if t == nil || t.Nftables == nil || *t.Nftables == "" || t.Legacy == nil || *t.Legacy == "" {
		return nil
	}
	return one(fmt.Sprintf("nf_tables: %s; iptables: %s", *t.Nftables, *t.Legacy))
}

func oldFirewall(f *Facts) []hit {
	t := f.Tried
	if t == nil || t.Nftables == nil || *t.Nftables == "" || t.Legacy == nil || *t.Legacy != "" {
		return nil
	}
	return one("making a table in a namespace of its own: " + *t.Nftables)
}

func noBridgeNF(f *Facts) []hit {
	if f.Net == nil || f.Net.BridgeNF == nil || *f.Net.BridgeNF {
		return nil
	}
	return one("/proc/sys/net/bridge is not there")
}

func mixedFirewall(f *Facts) []hit {
	if f.Firewall == nil || f.Firewall.NftRules <= 0 || f.Firewall.OldRules <= 0 {
		return nil
	}
	seen := fmt.Sprintf("iptables-nft has %d rules, iptables-legacy has %d", f.Firewall.NftRules, f.Firewall.OldRules)
	if f.Firewall.KubeHint != "" {
		seen += "; a kubelet left KUBE-IPTABLES-HINT in " + f.Firewall.KubeHint
	}
	return one(seen)
}

func dropping(f *Facts) []hit {
	if f.Firewall == nil || f.Firewall.Service == "" {
		return nil // a mere policy is the daemon's to deal with
	}
	return one(f.Firewall.Service + ": " + f.Firewall.Dropping)
}

func overlap(f *Facts) []hit {
	if f.Net == nil {
		return nil
	}
	var all []hit
	for _, o := range f.Net.Overlaps {
		all = append(all, hit{seen: o})
	}
	return all
}

func loopbackResolver(f *Facts) []hit {
	if f.Net == nil || f.Net.Resolv == nil {
		return nil
	}
	var loop []string
	for _, s := range f.Net.Resolv.Servers {
		if a, err := netip.ParseAddr(s); err == nil && a.IsLoopback() {
			loop = append(loop, s)
		}
	}
	if len(loop) == 0 {
		return nil
	}
	return one(f.Net.Resolv.Path + " names " + strings.Join(loop, ", "))
}

func noResolver(f *Facts) []hit {
	switch {
	case f.Net == nil || f.Net.Resolv == nil:
		return nil
	case f.Net.Resolv.Error != "":
		return one(f.Net.Resolv.Error)
	case len(f.Net.Resolv.Servers) == 0:
		return one(f.Net.Resolv.Path + " names no server")
	}
	return nil
}

func noAddress(f *Facts) []hit {
	if f.Net == nil || len(f.Net.Addresses) > 0 {
		return nil
	}
	return one("no default route, and no --node-ip")
}

func fullConntrack(f *Facts) []hit {
	if f.Net == nil || f.Net.Conntrack[1] <= 0 || f.Net.Conntrack[0] < f.Net.Conntrack[1]/10*9 {
		return nil
	}
	return one(fmt.Sprintf("%d of %d entries", f.Net.Conntrack[0], f.Net.Conntrack[1]))
}

func noForward(f *Facts) []hit {
	if f.Net == nil || f.Net.Forward4 != "0" {
		return nil
	}
	return one("net.ipv4.ip_forward is 0")
}

func cniRules() []rule {
	return []rule{
		{Kind{"NA-CNI-001", "CNI plugins are missing", Error,
			"A CNI configuration is in force whose programs are not there: no pod gets a network.",
			"install the plugins (containernetworking-plugins), set podNetwork.cniBinDir to where they are, or remove the configuration", false}, noPlugins},
		{Kind{"NA-CNI-002", "no CNI configuration can be used", Error,
			"There are files, and none is valid and root's alone.",
			"mend the file, or remove it to get the daemon's own bridge", false}, badCNI},
		{Kind{"NA-CNI-003", "there is no pod network", Warning,
			"Neither a CNI configuration nor a range of addresses: only pods on the host's network start.",
			"set podNetwork.cidrs, such as [10.244.0.0/24], or install a CNI configuration", false}, noPodNetwork},
	}
}

func noPlugins(f *Facts) []hit {
	if f.CNI == nil || len(f.CNI.Missing) == 0 {
		return nil
	}
	return one(fmt.Sprintf("%s names %s, not in %s", f.CNI.File, strings.Join(f.CNI.Missing, ", "), f.CNI.BinDir))
}

func badCNI(f *Facts) []hit {
	if f.CNI == nil || f.CNI.Error == "" {
		return nil
	}
	return one(f.CNI.Error)
}

func noPodNetwork(f *Facts) []hit {
	if f.CNI == nil || f.CNI.File != "" || f.CNI.Error != "" || len(f.Config.CIDRs) > 0 {
		return nil
	}
	return one("no CNI configuration and no podNetwork.cidrs")
}
