package gather

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nodeagent/internal/hostcheck"
	"nodeagent/internal/net/podnet"
)

func (g *gatherer) network(context.Context) (see, error) {
	n := &hostcheck.Net{}
	filtered := there("/proc/sys/net/bridge")
	n.BridgeNF = &filtered
	n.Forward4, _ = text("/proc/sys/net/ipv4/ip_forward")
	n.Conntrack[0], _ = number("/proc/sys/net/netfilter/nf_conntrack_count")
	n.Conntrack[1], _ = number("/proc/sys/net/netfilter/nf_conntrack_max")
	n.Resolv = g.resolv()
	if err := g.routes(n); err != nil {
		return nil, err
	}
	return func(f *hostcheck.Facts) { f.Net = n }, nil
}

// resolv reads what pods get; the daemon's own parser has the limits.
func (g *gatherer) resolv() *hostcheck.Resolv {
	if g.Resolv == "" {
		return nil
	}
	r := &hostcheck.Resolv{Path: g.Resolv}
	b, err := text(g.Resolv)
	if err != nil {
		r.Error = err.Error()
	}
	for line := range strings.Lines(b) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" {
			r.Servers = append(r.Servers, f[1])
		}
	}
	return r
}

// routes finds the node's addresses and what of the host lies in pods' ranges.
func (g *gatherer) routes(n *hostcheck.Net) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	_ = h.SetSocketTimeout(g.Limit)
	links, err := h.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list interfaces: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	n.Addresses = slices.Clone(g.NodeIPs)
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := h.RouteList(nil, family)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			dst, ok := prefix(r)
			switch {
			case !ok || r.Type != unix.RTN_UNICAST:
			case dst.Bits() == 0:
				n.Addresses = append(n.Addresses, "by the route over "+names[r.LinkIndex])
			case names[r.LinkIndex] == g.Bridge:
			default:
				n.Overlaps = append(n.Overlaps, g.overlaps(dst, names[r.LinkIndex])...)
			}
		}
	}
	return nil
}

func prefix(r netlink.Route) (netip.Prefix, bool) {
	if r.Dst == nil {
		return netip.Prefix{}, true
	}
	a, ok := netip.AddrFromSlice(r.Dst.IP)
	ones, _ := r.Dst.Mask.Size()
	a = a.Unmap()
	return netip.PrefixFrom(a, ones), ok
}

// overlaps says which pods' ranges a route lies in. A range of pods within a
// wider route is usual: the more exact route wins.
func (g *gatherer) overlaps(dst netip.Prefix, link string) []string {
	var all []string
	for _, p := range g.prefixes() {
		if p.Overlaps(dst) && dst.Bits() >= p.Bits() {
			all = append(all, fmt.Sprintf("%s is routed over %s, within the pods' %s", dst, link, p))
		}
	}
	return all
}

// cni looks at the configuration that would be in force, and for its programs.
func (g *gatherer) cni(context.Context) (see, error) {
	c := &hostcheck.CNI{BinDir: g.CNIBinDir}
	conf, err := podnet.LookConf(g.CNIConfDir)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, errNotRoot
	case err != nil:
		c.Error = err.Error()
	}
	c.File = conf.File
	for _, name := range conf.Plugins {
		if st, err := os.Stat(filepath.Join(g.CNIBinDir, name)); err != nil || st.IsDir() || st.Mode()&0o111 == 0 {
			c.Missing = append(c.Missing, name)
		}
	}
	return func(f *hostcheck.Facts) { f.CNI = c }, nil
}
