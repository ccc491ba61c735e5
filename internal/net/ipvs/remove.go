package ipvs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
)

// loaded tells whether the kernel has IPVS already: to ask it for IPVS would load it.
func loaded() bool {
	_, err := os.Stat("/proc/thread-self/net/ip_vs")
	return err == nil
}

// Remove takes all that is ours out of the kernel, at once: connections end. Where
// a kube-proxy works in this mode now, servers and device are its own, and only our
// sets and rules go.
func (b *Backend) Remove(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known = false
	if !loaded() {
		return nil
	}
	if err := b.remove(ctx); err != nil {
		return b.end(fmt.Errorf("remove service rules: %w", err))
	}
	return nil
}

func (b *Backend) remove(ctx context.Context) error {
	stop, err := b.open(ctx)
	if err != nil {
		return err
	}
	defer stop()
	there, err := b.sets.headers()
	if err != nil {
		return err
	}
	have := newHolding()
	some := false
	for _, v6 := range []bool{false, true} {
		for k := range setKinds {
			if h, ok := there[k.name(v6)]; ok && h.kind == forms[k].kind {
				some = true
				err = errors.Join(err, b.sets.list(k, k.name(v6), have.elements))
			}
		}
	}
	if err != nil || !some { // without sets there are no rules, and no servers
		return err
	}
	if _, theirs := there[kubeProxySign]; !theirs {
		if _, err := b.removeServers(have); err != nil {
			return err
		}
	}
	if err := b.removeRules(ctx); err != nil {
		return err
	}
	return b.destroyAll(ctx, there, isOurs)
}

// removeServers removes the device, and the virtual servers that are ours or at its
// addresses. It returns how many these were.
func (b *Backend) removeServers(have holding) (int, error) {
	at, err := b.readAddresses()
	if err != nil {
		return 0, err
	}
	servers, err := b.readServers()
	if err != nil {
		return 0, err
	}
	have.bound = at.bound
	n := 0
	for s, p := range servers {
		if !b.owns(s, have) {
			continue
		}
		if err := b.h.DelService(s.wire(p)); err != nil && !errors.Is(err, unix.ESRCH) {
			return n, fmt.Errorf("remove virtual server %s: %w", s.key(), err)
		}
		n++
	}
	clear(b.drains)
	return n, b.removeDevice(at)
}

// removeDevice removes the device, or if it has addresses that stay all others of it.
func (b *Backend) removeDevice(at addresses) error {
	if at.device == nil {
		return nil
	}
	gone, stay := b.leaving(at.bound)
	if !stay {
		if err := netlink.LinkDel(at.device); err != nil {
			return fmt.Errorf("remove device %s: %w", b.cfg.Device, err)
		}
		return nil
	}
	for _, a := range gone {
		if err := b.unbindAddress(a); err != nil {
			return err
		}
	}
	return nil
}

// leaving are the addresses of the device that are not excluded, and whether there
// are others.
func (b *Backend) leaving(bound map[netip.Addr]bool) (gone []netip.Addr, stay bool) {
	for a := range bound {
		if b.excluded(a) {
			stay = true
		} else {
			gone = append(gone, a)
		}
	}
	return gone, stay
}

func (b *Backend) removeRules(ctx context.Context) error {
	tools, err := b.choose(ctx)
	if err != nil {
		return err
	}
	for _, t := range tools {
		rules, err := t.read(ctx)
		if err == nil {
			err = t.write(ctx, undo(rules))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func isOurs(name string) bool {
	for _, v6 := range []bool{false, true} {
		for k := range setKinds {
			if k.name(v6) == name {
				return true
			}
		}
	}
	return false
}

// busyFor is how long sets may be in use by rules that are gone: the kernel frees
// these in the background.
const (
	busyFor   = 5 * time.Second
	busyPause = 20 * time.Millisecond
)

func (b *Backend) destroyAll(ctx context.Context, there map[string]header, which func(string) bool) error {
	ctx, cancel := context.WithTimeout(ctx, busyFor)
	defer cancel()
	for name := range there {
		if !which(name) {
			continue
		}
		err := b.sets.destroy(name)
		for errors.Is(err, errSetBusy) && ctx.Err() == nil {
			pause := time.NewTimer(busyPause)
			select {
			case <-ctx.Done():
			case <-pause.C:
			}
			pause.Stop()
			err = b.sets.destroy(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// kubeProxySets are those of kube-proxy in this mode, without what it puts before
// the names of IPv6.
var kubeProxySets = []string{
	"KUBE-LOOP-BACK", "KUBE-CLUSTER-IP", "KUBE-EXTERNAL-IP", "KUBE-EXTERNAL-IP-LOCAL", "KUBE-LOAD-BALANCER",
	"KUBE-LOAD-BALANCER-LOCAL", "KUBE-LOAD-BALANCER-FW", "KUBE-LOAD-BALANCER-SOURCE-IP", "KUBE-LOAD-BALANCER-SOURCE-CIDR",
	"KUBE-NODE-PORT-TCP", "KUBE-NODE-PORT-LOCAL-TCP", "KUBE-NODE-PORT-UDP", "KUBE-NODE-PORT-LOCAL-UDP",
	"KUBE-NODE-PORT-SCTP-HASH", "KUBE-NODE-PORT-LOCAL-SCTP-HASH", "KUBE-HEALTH-CHECK-NODE-PORT", "KUBE-IPVS-IPS",
}

// kubeProxySign is a set that is there where kube-proxy works in this mode.
const kubeProxySign = "KUBE-CLUSTER-IP"

// TakeOver removes the sets that a kube-proxy left in this mode, and its virtual
// servers of node ports, and says what there was. Its servers of other addresses
// are on the device and were taken over by the first Sync. Its rules have to be
// gone: they look into the sets.
func (b *Backend) TakeOver(ctx context.Context) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.succeed(ctx, func() (int, error) { return 0, nil })
}

// RemoveKubeProxy removes all that a kube-proxy left of this mode, for who serves in
// another one, but what is at the excluded addresses. Its rules have to be gone.
func RemoveKubeProxy(ctx context.Context, exclude []netip.Prefix) ([]string, error) {
	if !loaded() {
		return nil, nil
	}
	b, err := New(Config{Exclude: exclude})
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return b.succeed(ctx, func() (int, error) { return b.removeServers(newHolding()) })
}

// succeed does more if there are sets of kube-proxy's.
func (b *Backend) succeed(ctx context.Context, more func() (int, error)) ([]string, error) {
	stop, err := b.open(ctx)
	if err != nil {
		return nil, b.end(err)
	}
	defer stop()
	there, err := b.sets.headers()
	if err != nil {
		return nil, b.end(err)
	}
	left := map[string]header{}
	for _, name := range kubeProxySets {
		for _, full := range []string{name, "KUBE-6-" + name[len("KUBE-"):]} {
			if h, ok := there[full]; ok {
				left[full] = h
			}
		}
	}
	if len(left) == 0 {
		return nil, nil
	}
	n, err := b.dropNodePorts(there)
	if err == nil {
		var m int
		m, err = more()
		n += m
	}
	if err == nil {
		err = b.destroyAll(ctx, left, func(string) bool { return true })
	}
	if err != nil {
		return nil, b.end(fmt.Errorf("remove what kube-proxy left: %w", err))
	}
	return []string{fmt.Sprintf("%d sets KUBE-… and %d virtual servers", len(left), n)}, nil
}

// kubeProxyNodePorts are the node ports of a kube-proxy, without an address.
func (b *Backend) kubeProxyNodePorts(there map[string]header) (map[net.Address]bool, error) {
	ports := map[net.Address]bool{}
	for name, proto := range map[string]net.Proto{
		"KUBE-NODE-PORT-TCP": net.TCP, "KUBE-NODE-PORT-UDP": net.UDP, "KUBE-NODE-PORT-SCTP-HASH": net.SCTP,
		"KUBE-6-NODE-PORT-TCP": net.TCP, "KUBE-6-NODE-PORT-UDP": net.UDP, "KUBE-6-NODE-PORT-SCTP-HASH": net.SCTP,
	} {
		if _, ok := there[name]; !ok {
			continue
		}
		els := map[element]uint32{}
		if err := b.sets.list(served, name, els); err != nil {
			return nil, err
		}
		for x := range els {
			ports[net.Address{Port: x.at.Port, Proto: proto}] = true
		}
	}
	return ports, nil
}

// dropNodePorts removes the servers of kube-proxy's node ports that are not ours.
func (b *Backend) dropNodePorts(there map[string]header) (int, error) {
	ports, err := b.kubeProxyNodePorts(there)
	if err != nil {
		return 0, err
	}
	have := newHolding()
	for _, v6 := range []bool{false, true} {
		if _, ok := there[served.name(v6)]; !ok {
			continue
		}
		if err := b.sets.list(served, served.name(v6), have.elements); err != nil {
			return 0, err
		}
	}
	servers, err := b.readServers()
	if err != nil {
		return 0, err
	}
	n := 0
	for s, p := range servers {
		if s.mark != 0 || !ports[net.Address{Port: s.at.Port, Proto: s.at.Proto}] || b.owns(s, have) || b.excluded(s.at.IP) {
			continue
		}
		if err := b.h.DelService(s.wire(p)); err != nil && !errors.Is(err, unix.ESRCH) {
			return n, fmt.Errorf("remove virtual server %s: %w", s.key(), err)
		}
		b.sum -= s.sum(p)
		for a, w := range p.ends {
			b.sum -= s.sumEnd(a, w)
		}
		n++
	}
	return n, nil
}
