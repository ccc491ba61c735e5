package podnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// linkTimeout bounds one answer of the kernel. Under the deletion of many
// namespaces the routing lock is held for long.
const linkTimeout = 30 * time.Second

// routes opens a routing socket in the network namespace of the calling thread.
func routes() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open routing socket: %w", err)
	}
	if err := h.SetSocketTimeout(linkTimeout); err != nil {
		h.Close()
		return nil, fmt.Errorf("bound routing socket: %w", err)
	}
	return h, nil
}

// ensureBridge makes the bridge what it shall be and returns its index.
func (n *Network) ensureBridge(h *netlink.Handle) (int, error) {
	link, err := h.LinkByName(n.cfg.Bridge)
	if isNoLink(err) {
		link, err = n.addBridge(h)
	}
	if err != nil {
		return 0, fmt.Errorf("make bridge %s: %w", n.cfg.Bridge, err)
	}
	if link.Type() != "bridge" {
		return 0, fmt.Errorf("make bridge %s: a %s has that name", n.cfg.Bridge, link.Type())
	}
	// A router advertisement that a pod sends must not give the node a route.
	// And no probing of the link-local address: until its end the node cannot
	// ask for the neighbour of a packet that it forwards, and the first packets
	// to the first pod wait for up to two seconds.
	for _, key := range []string{"/accept_ra", "/accept_dad"} {
		if err := sysctl("net/ipv6/conf/"+n.cfg.Bridge+key, "0"); err != nil {
			return 0, err
		}
	}
	if err := n.ensureBridgeAddrs(h, link); err != nil {
		return 0, fmt.Errorf("give bridge %s its addresses: %w", n.cfg.Bridge, err)
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		if err := h.LinkSetUp(link); err != nil {
			return 0, fmt.Errorf("bring bridge %s up: %w", n.cfg.Bridge, err)
		}
	}
	return link.Attrs().Index, nil
}

func (n *Network) addBridge(h *netlink.Handle) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = n.cfg.Bridge, n.mtu(h)
	// A fixed address: without one the bridge takes the lowest of its ports,
	// and each change makes every pod's neighbour entry of it stale.
	attrs.HardwareAddr = macOf(n.pool.spans[0].gateway)
	if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	return h.LinkByName(n.cfg.Bridge)
}

// mtu is what pods may send at once: as much as the way out of the node takes,
// since the messages by which a sender learns of less get lost too often.
func (n *Network) mtu(h *netlink.Handle) int {
	if n.cfg.MTU != 0 {
		return n.cfg.MTU
	}
	least := 0
	// Addresses for documentation, which only a default route leads to. This
	// asks the kernel and sends nothing.
	for _, to := range []net.IP{net.IPv4(198, 51, 100, 1), net.ParseIP("2001:db8:ffff::1")} {
		found, err := h.RouteGet(to)
		if err != nil || len(found) == 0 {
			continue
		}
		l, err := h.LinkByIndex(found[0].LinkIndex)
		if err != nil || l.Attrs().MTU < 1280 || l.Attrs().Flags&net.FlagLoopback != 0 {
			continue
		}
		if least == 0 || l.Attrs().MTU < least {
			least = l.Attrs().MTU
		}
	}
	if least == 0 {
		return 1500
	}
	return min(least, 65535)
}

func (n *Network) ensureBridgeAddrs(h *netlink.Handle, link netlink.Link) error {
	have, err := addrList(h, link)
	if err != nil {
		return err
	}
	want := map[netip.Prefix]bool{}
	for _, s := range n.pool.spans {
		want[netip.PrefixFrom(s.gateway, s.prefix.Bits())] = true
	}
	for _, a := range have {
		p := prefixOf(a.IPNet)
		if want[p] {
			delete(want, p)
			continue
		}
		if p.Addr().IsLinkLocalUnicast() {
			continue
		}
		if err := h.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return err
		}
	}
	for p := range want {
		if err := h.AddrAdd(link, kernelAddr(p)); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add %s: %w", p, err)
		}
	}
	return nil
}

// addrList lists the addresses of a link. A dump that a change interrupted is
// taken again.
func addrList(h *netlink.Handle, link netlink.Link) ([]netlink.Addr, error) {
	return retryDump(func() ([]netlink.Addr, error) { return h.AddrList(link, netlink.FAMILY_ALL) })
}

func retryDump[T any](dump func() ([]T, error)) (out []T, err error) {
	for range 8 {
		if out, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return nil, err
}

// kernelAddr is an address as the kernel wants it. Duplicate address detection
// would make an IPv6 address unusable for a second or two, to find out what the
// journal knows.
func kernelAddr(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones)
}

// macOf derives a hardware address from an IP address, so that a neighbour who
// remembers the one for the other is right whichever pod has it.
func macOf(a netip.Addr) net.HardwareAddr {
	b := a.AsSlice()
	b = b[len(b)-4:]
	kind := byte(0x58)
	if a.Is6() {
		kind = 0x5a
	}
	return net.HardwareAddr{0x0a, kind, b[0], b[1], b[2], b[3]}
}

func isNoLink(err error) bool {
	var none netlink.LinkNotFoundError
	return errors.As(err, &none) || errors.Is(err, unix.ENODEV)
}
