package podnet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// sysctl writes a value below /proc/sys where it is not there already, in the
// network namespace of the calling thread. A key that the kernel lacks (IPv6
// switched off) is no error.
func sysctl(key, value string) error {
	path := filepath.Join("/proc/sys", key)
	now, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && strings.TrimSpace(string(now)) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("set sysctl %s to %s: %w", key, value, err)
	}
	return nil
}

// forwarding makes the node a router for the families that its pods have.
// route_localnet stays what it is: with it on, a neighbour could reach services
// that listen on 127.0.0.1 (CVE-2020-8558).
//
// With br_netfilter, packets between two ports of the bridge pass the firewall
// too: without that, the answer of a service's pod to a pod of the same node
// would not be translated back.
func forwarding(v4, v6 bool) error {
	if v4 {
		if err := sysctl("net/ipv4/ip_forward", "1"); err != nil {
			return err
		}
		if err := sysctl("net/bridge/bridge-nf-call-iptables", "1"); err != nil {
			return err
		}
	}
	if !v6 {
		return nil
	}
	if err := sysctl("net/bridge/bridge-nf-call-ip6tables", "1"); err != nil {
		return err
	}
	if err := keepRouterAdvertisements(); err != nil {
		return err
	}
	return sysctl("net/ipv6/conf/all/forwarding", "1")
}

// keepRouterAdvertisements sets accept_ra from 1 (accept unless forwarding) to
// 2 (accept) before forwarding goes on: else a node that has its default route
// from its router would lose it.
func keepRouterAdvertisements() error {
	const conf = "/proc/sys/net/ipv6/conf"
	if b, err := os.ReadFile(conf + "/all/forwarding"); err != nil || strings.TrimSpace(string(b)) != "0" {
		return nil
	}
	entries, err := os.ReadDir(conf)
	if err != nil {
		return fmt.Errorf("list interfaces with ipv6: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if e.Name() == "all" || e.Name() == "default" || e.Name() == "lo" {
			continue
		}
		key := "net/ipv6/conf/" + e.Name() + "/accept_ra"
		if b, err := os.ReadFile("/proc/sys/" + key); err == nil && strings.TrimSpace(string(b)) == "1" {
			errs = append(errs, sysctl(key, "2"))
		}
	}
	return errors.Join(errs...)
}
