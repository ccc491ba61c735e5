package node

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// AddressInputs is what the node's addresses follow from.
type AddressInputs struct {
	Hostname string
	Given    []netip.Addr // --node-ip, at most one of each family
	Named    []netip.Addr // what the hostname resolves to
	Routed   []netip.Addr // of the interfaces of the default routes
	Local    []netip.Addr // all of this host
	// ExternalCloud: without a given address only the hostname is told, and a
	// cloud controller adds the rest.
	ExternalCloud bool
}

// Addresses are the node's addresses in kubelet's order of choice: those given;
// the hostname where it is one; what the hostname resolves to on this host; the
// default route's. An unspecified address (0.0.0.0 or ::) given says only which
// family is preferred.
func Addresses(in AddressInputs) ([]corev1.NodeAddress, error) {
	name := corev1.NodeAddress{Type: corev1.NodeHostName, Address: in.Hostname}
	prefer6 := len(in.Given) > 0 && in.Given[0].Is6()
	var chosen []netip.Addr
	for _, a := range in.Given {
		if a.IsUnspecified() {
			continue
		}
		if err := usable(a, in.Local); err != nil {
			return nil, fmt.Errorf("use %s of --node-ip: %w", a, err)
		}
		chosen = append(chosen, a)
	}
	if len(chosen) == 0 && in.ExternalCloud && len(in.Given) == 0 {
		return []corev1.NodeAddress{name}, nil
	}
	if len(chosen) == 0 {
		a, ok := found(in, prefer6)
		if !ok {
			return nil, errors.New("find the node's address: the hostname resolves to none of this host, and there is no default route: give it by --node-ip")
		}
		chosen = []netip.Addr{a}
	}
	var all []corev1.NodeAddress
	for _, a := range chosen {
		all = append(all, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	return append(all, name), nil
}

func found(in AddressInputs, prefer6 bool) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(in.Hostname); err == nil {
		return a.Unmap(), true
	}
	named := slices.DeleteFunc(slices.Clone(in.Named), func(a netip.Addr) bool { return usable(a, in.Local) != nil })
	for _, from := range [][]netip.Addr{named, in.Routed} {
		if len(from) == 0 {
			continue
		}
		for _, a := range from {
			if a.Unmap().Is6() == prefer6 {
				return a.Unmap(), true
			}
		}
		return from[0].Unmap(), true
	}
	return netip.Addr{}, false
}

// usable tells why an address cannot be the node's.
func usable(a netip.Addr, local []netip.Addr) error {
	a = a.Unmap()
	switch {
	case a.IsLoopback():
		return errors.New("it is a loopback address")
	case a.IsMulticast():
		return errors.New("it is a multicast address")
	case a.IsLinkLocalUnicast():
		return errors.New("it is a link-local address")
	case a.IsUnspecified():
		return errors.New("it is no address")
	case !slices.Contains(local, a):
		return errors.New("no interface of this host has it")
	}
	return nil
}
