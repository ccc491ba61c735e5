package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"nodeagent/internal/config"
	"nodeagent/internal/pod"
	"nodeagent/internal/pod/etc"
)

// memoryCapacity is MemTotal of /proc/meminfo in bytes, as kubelet reports it.
func memoryCapacity() (int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("read the node's memory: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "MemTotal:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.Join(lines.Err(), errors.New("read the node's memory: /proc/meminfo has no MemTotal"))
}

// nodeResources are what all pods together may use: the CPU of the node decides
// their weight against the rest of the system, and nothing else is limited.
func nodeResources() pod.Resources {
	return pod.NodeResources(corev1.ResourceList{
		corev1.ResourceCPU: *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
	})
}

// allocatable is what pods can use of the node, as long as nothing is kept back
// for others: its processors, its memory, and the file system under root.
func allocatable(memory int64, root string) corev1.ResourceList {
	all := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(memory, resource.BinarySI),
	}
	var st unix.Statfs_t
	for dir := root; ; dir = filepath.Dir(dir) { // it may have to be made yet
		if err := unix.Statfs(dir, &st); err == nil {
			all[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(int64(st.Blocks)*st.Bsize, resource.BinarySI)
			return all
		}
		if dir == "/" || dir == "." {
			return all
		}
	}
}

// hostAddrs are the addresses of the interface that the default route of each
// family leaves by; without one, loopback, so that a pod on the host network
// has an address at all.
func hostAddrs() ([]netip.Addr, error) {
	var all []netip.Addr
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{}, netlink.RT_FILTER_DST)
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, fmt.Errorf("find the node's address: %w", err)
		}
		for _, r := range routes {
			if a, ok := globalAddr(r.LinkIndex, family); ok {
				all = append(all, a)
				break
			}
		}
	}
	if len(all) == 0 {
		all = append(all, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	return all, nil
}

func globalAddr(index, family int) (netip.Addr, bool) {
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return netip.Addr{}, false
	}
	addrs, err := netlink.AddrList(link, family)
	if err != nil {
		return netip.Addr{}, false
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap().IsGlobalUnicast() {
			return ip.Unmap(), true
		}
	}
	return netip.Addr{}, false
}

// nodeDNS reads the node's resolver configuration again when it changed.
type nodeDNS struct {
	path string

	mu   sync.Mutex
	seen time.Time
	dns  etc.DNS
}

func newNodeDNS(cfg *config.Config) (*nodeDNS, error) {
	n := &nodeDNS{path: *cfg.Kubelet.ResolverConfig}
	n.dns = etc.DNS{ClusterDNS: cfg.Kubelet.ClusterDNS, ClusterDomain: cfg.Kubelet.ClusterDomain, NoNodeFile: n.path == "", NodeIPs: cfg.NodeIPs}
	if n.path == "" {
		return n, nil
	}
	if _, err := os.Stat(n.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the node's resolver configuration: %w", err)
	}
	return n, nil
}

// maxResolvConf is the most that is read of it, as kubelet.
const maxResolvConf = 10 << 20

// read returns what the node knows about names now. A file that cannot be read
// leaves what was known before.
func (n *nodeDNS) read() etc.DNS {
	n.mu.Lock()
	defer n.mu.Unlock()
	st, err := os.Stat(n.path)
	if n.path == "" || err != nil || st.ModTime().Equal(n.seen) {
		return n.dns
	}
	f, err := os.Open(n.path)
	if err != nil {
		return n.dns
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxResolvConf))
	if err != nil {
		return n.dns
	}
	if conf, err := etc.ParseResolvConf(text); err == nil {
		n.dns.Node, n.seen = conf, st.ModTime()
	}
	return n.dns
}
