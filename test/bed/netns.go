package bed

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The node inside a bed (TEST-NET-1 and the documentation prefix: never routed).
const (
	NodeIP   = "192.0.2.10"
	NodeIPv6 = "2001:db8::10"
	bridge   = "node0"
)

// newNetns gives the calling thread a network namespace without an uplink: lo,
// a bridge with the node's addresses, and default routes to that bridge, so that
// nothing sent inside can ever leave.
func newNetns() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	h, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := h.LinkSetUp(lo); err != nil {
		return err
	}
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge}}
	if err := h.LinkAdd(br); err != nil {
		return fmt.Errorf("make bridge %s: %w", bridge, err)
	}
	if err := address(h, br); err != nil {
		return err
	}
	return nil
}

func address(h *netlink.Handle, br netlink.Link) error {
	// Not every kernel has IPv6; a bed without it is still a bed.
	for _, cidr := range []string{NodeIP + "/24", NodeIPv6 + "/64"} {
		a, err := netlink.ParseAddr(cidr)
		if err != nil {
			return err
		}
		if a.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrAdd(br, a); err != nil && !(a.IP.To4() == nil && withoutIPv6(err)) {
			return fmt.Errorf("give %s the address %s: %w", bridge, cidr, err)
		}
	}
	if err := h.LinkSetUp(br); err != nil {
		return err
	}
	for _, dst := range []string{"0.0.0.0/0", "::/0"} {
		_, to, err := net.ParseCIDR(dst)
		if err != nil {
			return err
		}
		r := &netlink.Route{LinkIndex: br.Attrs().Index, Dst: to}
		if err := h.RouteAdd(r); err != nil && !(to.IP.To4() == nil && withoutIPv6(err)) {
			return fmt.Errorf("route %s to %s: %w", dst, bridge, err)
		}
	}
	return nil
}

func withoutIPv6(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EACCES)
}
