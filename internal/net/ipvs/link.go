package ipvs

import (
	"errors"
	"fmt"
	stdnet "net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// addresses is what the node has.
type addresses struct {
	device netlink.Link // nil: not there
	up     bool
	bound  map[netip.Addr]bool // on the device
	nodes  []netip.Addr        // on others, sorted
}

// maxDumps is how often addresses are listed before that is an error.
const maxDumps = 10

// readAddresses reads them. Node ports are served at no loopback address, which
// the kernel would have to route, and at no link-local one of IPv6, which is of one
// link alone.
func (b *Backend) readAddresses() (addresses, error) {
	out := addresses{bound: map[netip.Addr]bool{}}
	link, err := netlink.LinkByName(b.cfg.Device)
	var none netlink.LinkNotFoundError
	switch {
	case errors.As(err, &none):
	case err != nil:
		return out, fmt.Errorf("look for device %s: %w", b.cfg.Device, err)
	default:
		out.device, out.up = link, link.Attrs().Flags&stdnet.FlagUp != 0
	}
	var all []netlink.Addr
	for range maxDumps { // while addresses change the kernel tells that it may have missed some
		if all, err = netlink.AddrList(nil, netlink.FAMILY_ALL); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return out, fmt.Errorf("list addresses: %w", err)
	}
	for _, x := range all {
		a, ok := netip.AddrFromSlice(x.IP)
		if a = a.Unmap(); !ok || a.IsLoopback() || (a.Is6() && a.IsLinkLocalUnicast()) {
			continue
		}
		if out.device != nil && x.LinkIndex == out.device.Attrs().Index {
			out.bound[a] = true
		} else {
			out.nodes = append(out.nodes, a)
		}
	}
	slices.SortFunc(out.nodes, netip.Addr.Compare)
	out.nodes = slices.Compact(out.nodes)
	return out, nil
}

// ensureDevice makes the device that has the service addresses, and brings it up:
// on one that went down the kernel forgets how to reach them.
func (b *Backend) ensureDevice(have *addresses) error {
	if have.device == nil {
		la := netlink.NewLinkAttrs()
		la.Name = b.cfg.Device
		err := netlink.LinkAdd(&netlink.Dummy{LinkAttrs: la})
		if errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("make device %s: %w: the kernel has no dummy devices: load the module dummy, or serve by mode nftables", b.cfg.Device, err)
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make device %s: %w", b.cfg.Device, err)
		}
		link, err := netlink.LinkByName(b.cfg.Device)
		if err != nil {
			return fmt.Errorf("look for device %s: %w", b.cfg.Device, err)
		}
		have.device, have.up = link, false
	}
	if have.up {
		return nil
	}
	// It needs no address of its own kind. Kernels without IPv6 have no such mode.
	_ = netlink.LinkSetIP6AddrGenMode(have.device, nl.IN6_ADDR_GEN_MODE_NONE)
	if err := netlink.LinkSetUp(have.device); err != nil {
		return fmt.Errorf("bring device %s up: %w", b.cfg.Device, err)
	}
	have.up = true
	return nil
}

// bindAddress puts an address on the device, without looking whether another host
// has it, which takes seconds: many nodes have it.
func (b *Backend) bindAddress(a netip.Addr) error {
	link, err := netlink.LinkByName(b.cfg.Device)
	if err != nil {
		return fmt.Errorf("look for device %s: %w", b.cfg.Device, err)
	}
	b.writes++
	err = netlink.AddrAdd(link, oneAddress(a))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add address %s to device %s: %w", a, b.cfg.Device, err)
	}
	return nil
}

func (b *Backend) unbindAddress(a netip.Addr) error {
	link, err := netlink.LinkByName(b.cfg.Device)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil
	}
	if err == nil {
		b.writes++
		err = netlink.AddrDel(link, oneAddress(a))
	}
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove address %s from device %s: %w", a, b.cfg.Device, err)
	}
	return nil
}

func oneAddress(a netip.Addr) *netlink.Addr {
	out := &netlink.Addr{IPNet: &stdnet.IPNet{IP: a.AsSlice(), Mask: stdnet.CIDRMask(a.BitLen(), a.BitLen())}}
	if a.Is6() {
		out.Flags = unix.IFA_F_NODAD
	}
	return out
}
