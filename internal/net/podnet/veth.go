package podnet

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"

	"nodeagent/internal/failpoint"
)

// podLink is the name of the interface in the pod, as every CNI has it.
const podLink = "eth0"

// addLink makes the veth pair of a record with one end in the pod's namespace
// at once, so that there is never an interface of the pod in the node's own.
func (n *Network) addLink(h *netlink.Handle, bridge *netlink.LinkAttrs, r *record, ns *os.File) error {
	if err := failpoint.At(failpoint.PodnetLinkBefore); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.MasterIndex = r.Link, bridge.MTU, bridge.Index
	attrs.Alias = alias(r.Sandbox, r.Addrs)
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace = podLink, netlink.NsFd(int(ns.Fd()))
	veth.PeerHardwareAddr, veth.PeerMTU = macOf(r.Addrs[0]), uint32(bridge.MTU)
	if err := h.LinkAdd(veth); err != nil {
		return fmt.Errorf("make interface pair %s: %w", r.Link, err)
	}
	// A kernel takes the alias only from a change, not from a creation.
	if err := h.LinkSetAlias(veth, attrs.Alias); err != nil {
		return fmt.Errorf("label interface %s: %w", r.Link, err)
	}
	// Hairpin: a pod that calls itself by an address of the node, with the
	// translation done on the bridge (br_netfilter), comes back where it left.
	if err := h.LinkSetHairpin(veth, true); err != nil {
		return fmt.Errorf("set hairpin mode of %s: %w", r.Link, err)
	}
	// A port of a bridge speaks no IPv6 of its own; without this each one keeps
	// a link-local address, its routes and its timers.
	if err := sysctl("net/ipv6/conf/"+r.Link+"/disable_ipv6", "1"); err != nil {
		return err
	}
	if err := h.LinkSetUp(veth); err != nil {
		return fmt.Errorf("bring %s up: %w", r.Link, err)
	}
	return failpoint.At(failpoint.PodnetLinkAfter)
}

// fillNetns gives the pod's end its addresses and routes, and makes sure that
// lo is up.
func (n *Network) fillNetns(r *record, ns *os.File) error {
	if err := failpoint.At(failpoint.PodnetAddressBefore); err != nil {
		return err
	}
	h, err := routesIn(ns, func() error { return podSysctls(r.Addrs) })
	if err != nil {
		return err
	}
	defer h.Close()
	if err := linkUp(h, "lo"); err != nil {
		return err
	}
	if err := n.configure(h, r.Addrs); err != nil {
		return err
	}
	return failpoint.At(failpoint.PodnetAddressAfter)
}

// podSysctls runs in the pod's namespace, before the interface is up: no router
// advertisement of a neighbour may give the pod a route (CVE-2020-10749), and
// IPv6 is on where the pod gets such an address, whatever the node's default.
func podSysctls(addrs []netip.Addr) error {
	const conf = "net/ipv6/conf/" + podLink
	if err := sysctl(conf+"/accept_ra", "0"); err != nil {
		return err
	}
	// The link-local address comes from a hardware address that nobody else
	// has, so it need not be probed for a second or more.
	if err := sysctl(conf+"/accept_dad", "0"); err != nil {
		return err
	}
	if addrs[len(addrs)-1].Is6() {
		return sysctl(conf+"/disable_ipv6", "0")
	}
	return nil
}

func (n *Network) configure(h *netlink.Handle, addrs []netip.Addr) error {
	eth, err := h.LinkByName(podLink)
	if err != nil {
		return fmt.Errorf("find %s in the pod: %w", podLink, err)
	}
	for _, a := range addrs {
		s := n.pool.span(a)
		if s == nil {
			return fmt.Errorf("give the pod address %s: no longer in a pod CIDR", a)
		}
		if err := h.AddrAdd(eth, kernelAddr(netip.PrefixFrom(a, s.prefix.Bits()))); err != nil {
			return fmt.Errorf("give the pod address %s: %w", a, err)
		}
	}
	if err := h.LinkSetUp(eth); err != nil {
		return fmt.Errorf("bring %s up in the pod: %w", podLink, err)
	}
	for _, a := range addrs {
		gw := n.pool.span(a).gateway
		route := &netlink.Route{LinkIndex: eth.Attrs().Index, Gw: net.IP(gw.AsSlice())}
		if gw.Is6() {
			route.Dst = ipNet(netip.PrefixFrom(netip.IPv6Unspecified(), 0))
		}
		if err := h.RouteAdd(route); err != nil {
			return fmt.Errorf("route the pod through %s: %w", gw, err)
		}
	}
	return nil
}

func linkUp(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s in the pod: %w", name, err)
	}
	if link.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring %s up in the pod: %w", name, err)
	}
	return nil
}

// ownLinks returns the host ends of our veth pairs: ports of our bridge with
// our prefix, and such as say in their alias that they are ours.
func (n *Network) ownLinks(h *netlink.Handle) (map[string]netlink.Link, error) {
	links, err := retryDump(h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	bridge := -1
	for _, l := range links {
		if l.Attrs().Name == n.cfg.Bridge && l.Type() == "bridge" {
			bridge = l.Attrs().Index
		}
	}
	own := map[string]netlink.Link{}
	for _, l := range links {
		a := l.Attrs()
		if l.Type() == "veth" && len(a.Name) == len(linkName("")) && a.Name[:2] == linkPrefix && a.MasterIndex == bridge {
			own[a.Name] = l
		}
	}
	return own, nil
}
