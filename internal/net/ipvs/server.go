package ipvs

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"hash/maphash"
	"net/netip"
	"time"

	lvs "github.com/moby/ipvs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
)

// ErrMissing tells that this kernel cannot do it at all.
var ErrMissing = errors.New("the kernel of this node has no IPVS: load it (modprobe ip_vs; some systems have it in a package of extra modules), or serve by mode nftables")

// present asks for IPVS; the kernel loads its module for that. It has to be asked
// first: the library would not say that it is missing, and wait for an answer that
// never comes.
func present() error {
	_, err := netlink.GenlFamilyGet("IPVS")
	if errors.Is(err, unix.ENOENT) {
		return ErrMissing
	}
	if err != nil {
		return fmt.Errorf("ask the kernel for IPVS: %w", err)
	}
	return nil
}

// openServers opens the socket to IPVS.
func (b *Backend) openServers() error {
	if b.h != nil {
		return nil
	}
	if err := present(); err != nil {
		return err
	}
	h, err := lvs.New("")
	if err != nil {
		return fmt.Errorf("open IPVS socket: %w", err)
	}
	b.h = h
	return nil
}

// drain is an endpoint that gets no new connections.
type drain struct {
	server
	end netip.AddrPort
}

// How long an endpoint that is no more may keep its connections. Idle ones end
// before, by the kernel's timeouts.
const drainLimit = 24 * time.Hour

const persistent = 1 // IP_VS_SVC_F_PERSISTENT

func familyOf(s server) uint16 {
	if s.at.IP.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// wire is a server in the library's form.
func (s server) wire(p pool) *lvs.Service {
	out := &lvs.Service{AddressFamily: familyOf(s), FWMark: s.mark, SchedName: p.scheduler, Netmask: 0xffffffff}
	if s.at.IP.Is6() {
		out.Netmask = 128
	}
	if s.mark == 0 {
		out.Address, out.Port, out.Protocol = s.at.IP.AsSlice(), s.at.Port, uint16(s.at.Proto)
	}
	if p.keep > 0 {
		out.Flags, out.Timeout = persistent, p.keep
	}
	return out
}

func serverOf(x *lvs.Service) (server, pool) {
	s, p := server{mark: x.FWMark}, pool{scheduler: x.SchedName}
	if x.Flags&persistent != 0 {
		p.keep = x.Timeout
	}
	s.at.IP = netip.IPv6Unspecified()
	if x.AddressFamily == unix.AF_INET {
		s.at.IP = netip.IPv4Unspecified()
	}
	if s.mark == 0 {
		s.at.IP, _ = netip.AddrFromSlice(x.Address)
		s.at.Port, s.at.Proto = x.Port, net.Proto(x.Protocol)
	}
	return s, p
}

func wireEnd(a netip.AddrPort, weight int) *lvs.Destination {
	return &lvs.Destination{Address: a.Addr().AsSlice(), Port: a.Port(), Weight: weight, ConnectionFlags: lvs.ConnFwdMasq}
}

func endOf(x *lvs.Destination) netip.AddrPort {
	a, _ := netip.AddrFromSlice(x.Address)
	return netip.AddrPortFrom(a, x.Port)
}

// sum is a digest of virtual servers that can be kept up change by change, in
// which the order has no part.
type sum uint64

func digest(parts ...any) sum {
	h := fnv.New64a()
	fmt.Fprintln(h, parts...)
	return sum(h.Sum64())
}

// key is what a server is called in a digest. /proc does not tell the family of a
// mark.
func (s server) key() string {
	if s.mark != 0 {
		return fmt.Sprintf("mark %x", s.mark)
	}
	return s.at.String()
}

func (s server) sum(p pool) sum { return digest(s.key(), p.scheduler, p.keep) }

func (s server) sumEnd(a netip.AddrPort, weight int) sum { return digest(s.key(), a, weight) }

// foreignWeight stands for that of an endpoint to which somebody sends packets in
// another way than we do: none of ours is like it.
const foreignWeight = -1

func weightOf(x *lvs.Destination) int {
	if x.ConnectionFlags&lvs.ConnFwdMask != lvs.ConnFwdMasq {
		return foreignWeight
	}
	return x.Weight
}

// sumElement is of an element of a set.
func (b *Backend) sumElement(x element, mark uint32) sum {
	return sum(maphash.Comparable(b.seed, struct {
		element
		mark uint32
	}{x, mark}))
}

// readServers reads all virtual servers, and notes their sum.
func (b *Backend) readServers() (map[server]pool, error) {
	all, err := b.h.GetServices()
	if err != nil {
		return nil, fmt.Errorf("list virtual servers: %w", err)
	}
	out := make(map[server]pool, len(all))
	b.sum = 0
	for _, x := range all {
		s, p := serverOf(x)
		ends, err := b.h.GetDestinations(s.wire(p))
		if errors.Is(err, unix.ESRCH) {
			continue // it is gone again
		}
		if err != nil {
			return nil, fmt.Errorf("list endpoints of virtual server %s: %w", s.key(), err)
		}
		b.sum += s.sum(p)
		p.ends = make(map[netip.AddrPort]int, len(ends))
		for _, e := range ends {
			p.ends[endOf(e)] = weightOf(e)
			b.sum += s.sumEnd(endOf(e), weightOf(e))
		}
		out[s] = p
	}
	return out, nil
}

// putServer makes a server as it shall be, with endpoints that are not what was.
func (b *Backend) putServer(s server, was pool, there bool, want pool) error {
	switch {
	case !there:
		if err := b.newServer(s, want); err != nil {
			return fmt.Errorf("add virtual server %s: %w", s.key(), judged(err))
		}
	case was.scheduler != want.scheduler || was.keep != want.keep:
		if err := b.h.UpdateService(s.wire(want)); err != nil {
			return fmt.Errorf("change virtual server %s: %w", s.key(), judged(err))
		}
		b.writes++
		b.sum += s.sum(want) - s.sum(was)
	}
	for a := range want.ends {
		if w, ok := was.ends[a]; ok && w == 1 {
			continue
		}
		if err := b.putEnd(s, want, a); err != nil {
			return fmt.Errorf("add endpoint %s of virtual server %s: %w", a, s.key(), judged(err))
		}
	}
	return nil
}

// newServer adds a server, or takes one over that still has connections.
func (b *Backend) newServer(s server, p pool) error {
	err := b.h.NewService(s.wire(p))
	b.writes++
	if err == nil {
		b.sum += s.sum(p)
		return nil
	}
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	x, err := b.h.GetService(s.wire(p))
	if err != nil {
		return err
	}
	_, was := serverOf(x)
	if err := b.h.UpdateService(s.wire(p)); err != nil {
		return err
	}
	b.sum += s.sum(p) - s.sum(was)
	return nil
}

func (b *Backend) putEnd(s server, p pool, a netip.AddrPort) error {
	err := b.h.NewDestination(s.wire(p), wireEnd(a, 1))
	if errors.Is(err, unix.EEXIST) {
		var ends []*lvs.Destination
		if ends, err = b.h.GetDestinations(s.wire(p)); err != nil {
			return err
		}
		for _, e := range ends {
			if endOf(e) == a {
				b.sum -= s.sumEnd(a, weightOf(e))
			}
		}
		err = b.h.UpdateDestination(s.wire(p), wireEnd(a, 1))
	}
	b.writes++
	if err == nil {
		b.sum += s.sumEnd(a, 1)
		delete(b.drains, drain{s, a})
	}
	return err
}

// retire takes endpoints away that are not wanted, and the server if it is not
// wanted, either. What has connections gets no new ones and stays until it has
// none.
func (b *Backend) retire(s server, p pool, wanted map[netip.AddrPort]int, whole bool, since map[drain]time.Time) error {
	ends, err := b.h.GetDestinations(s.wire(p))
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list endpoints of virtual server %s: %w", s.key(), err)
	}
	stays := 0
	for _, e := range ends {
		a := endOf(e)
		if _, ok := wanted[a]; ok {
			continue
		}
		begun, known := since[drain{s, a}]
		if !known {
			begun = time.Now()
		}
		if busy := e.ActiveConnections > 0 && !s.quick() && time.Since(begun) < drainLimit; busy {
			err = b.quiesce(s, p, a, weightOf(e))
			b.drains[drain{s, a}] = begun
			stays++
		} else {
			err = b.dropEnd(s, p, a, weightOf(e))
			delete(b.drains, drain{s, a})
		}
		if err != nil {
			return fmt.Errorf("remove endpoint %s of virtual server %s: %w", a, s.key(), err)
		}
	}
	if !whole || stays > 0 {
		return nil
	}
	if err := b.h.DelService(s.wire(p)); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove virtual server %s: %w", s.key(), err)
	}
	b.writes++
	b.sum -= s.sum(p)
	return nil
}

func (b *Backend) quiesce(s server, p pool, a netip.AddrPort, weight int) error {
	if weight == 0 {
		return nil
	}
	err := b.h.UpdateDestination(s.wire(p), wireEnd(a, 0))
	b.writes++
	if err == nil {
		b.sum += s.sumEnd(a, 0) - s.sumEnd(a, weight)
	}
	return err
}

func (b *Backend) dropEnd(s server, p pool, a netip.AddrPort, weight int) error {
	err := b.h.DelDestination(s.wire(p), wireEnd(a, 0))
	b.writes++
	if err == nil {
		b.sum -= s.sumEnd(a, weight)
	}
	return err
}

// setTimeouts are for how long the kernel remembers idle connections.
func (b *Backend) setTimeouts() error {
	want := lvs.Config{TimeoutTCP: b.cfg.TCP, TimeoutTCPFin: b.cfg.TCPFin, TimeoutUDP: b.cfg.UDP}
	if want == (lvs.Config{}) {
		return nil
	}
	if err := b.h.SetConfig(&want); err != nil {
		return fmt.Errorf("set the timeouts of IPVS: %w", err)
	}
	return nil
}

// judged marks the kernel's answers to what it was asked to hold. A scheduler that
// it lacks is no service's fault.
func judged(err error) error {
	for _, e := range []error{unix.EINVAL, unix.ERANGE, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.EMSGSIZE} {
		if errors.Is(err, e) {
			return net.AsRefused(err)
		}
	}
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: the kernel lacks the scheduler, or its module", err)
	}
	return err
}

// guard ends what is asked of the kernel with ctx: the library has no deadline.
func (b *Backend) guard(ctx context.Context) (stop func()) {
	h := b.h
	end := context.AfterFunc(ctx, h.Close)
	return func() {
		if !end() && b.h == h {
			b.h = nil
		}
	}
}
