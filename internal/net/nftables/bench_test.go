package nftables

import (
	"context"
	"fmt"
	stdnet "net"
	"sync"
	"syscall"
	"testing"
	"time"

	mdl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/net"
	"nodeagent/internal/net/hosttest"
	"nodeagent/internal/net/nettest"
	"nodeagent/internal/net/news"
	"nodeagent/internal/test/need"
)

// cpu is what this process used of processors, in user mode and in the kernel.
func cpu() (user, kernel time.Duration) {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano()), time.Duration(u.Stime.Nano())
}

// BenchmarkProgram programs all services of 5 endpoints at once into an empty
// kernel; the read-back is part of it.
func BenchmarkProgram(b *testing.B) {
	need.Have(b, need.Root)
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			services, endpoints := nettest.Many(n, 5)
			table := net.Build(services, endpoints, thisNode)
			be := backend(b, Config{})
			for b.Loop() {
				must(b, be.Remove(hosttest.Ctx(b)))
				_, err := be.Sync(hosttest.Ctx(b), table)
				must(b, err)
			}
		})
	}
}

// BenchmarkHeard programs ten thousand services while the kernel tells of what changes:
// to nobody, to two listeners as the daemon has, and to two who want to hear of ours.
func BenchmarkHeard(b *testing.B) {
	need.Have(b, need.Root)
	services, endpoints := nettest.Many(10_000, 5)
	table := net.Build(services, endpoints, thisNode)
	for _, x := range []struct {
		by  string
		n   int
		own *news.Own
	}{{"nobody", 0, nil}, {"the daemon", 2, new(news.Own)}, {"others", 2, nil}} {
		b.Run(x.by, func(b *testing.B) {
			be := backend(b, Config{Own: x.own})
			ctx, cancel := context.WithCancel(b.Context())
			var all sync.WaitGroup
			for range x.n {
				begun := make(chan struct{})
				all.Go(func() {
					_ = x.own.Others(ctx, unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES, func(m mdl.Message) { be.concerns(m) }, sync.OnceFunc(func() { close(begun) }))
				})
				<-begun
			}
			for b.Loop() {
				must(b, be.Remove(hosttest.Ctx(b)))
				_, err := be.Sync(hosttest.Ctx(b), table)
				must(b, err)
			}
			cancel()
			all.Wait()
		})
	}
}

// BenchmarkChange moves one endpoint among n services: the time until the
// kernel has it, and what it costs of processors.
func BenchmarkChange(b *testing.B) {
	need.Have(b, need.Root)
	for _, what := range []string{oneMoved, oneGone, oneAlone, oneSticky} {
		for _, n := range []int{100, 1000, 10_000} {
			b.Run(fmt.Sprintf("%s/%d", what, n), func(b *testing.B) { benchChange(b, n, what) })
		}
	}
}

const (
	oneMoved  = "moved"
	oneGone   = "gone and back"                           // other services have as many endpoints
	oneAlone  = "gone and back, a number alone"           // no other service has
	oneSticky = "gone and back, a number alone, affinity" // of all services
)

func benchChange(b *testing.B, n int, what string) {
	services, endpoints := nettest.Many(n, 5)
	if what == oneGone {
		endpoints[n-1].Endpoints = endpoints[n-1].Endpoints[1:]
	}
	if what == oneSticky {
		for _, x := range services {
			nettest.Affinity(10_800)(x)
		}
	}
	m := nettest.Filled(thisNode, services, endpoints)
	be := backend(b, Config{})
	_, err := be.Sync(hosttest.Ctx(b), m.Table())
	must(b, err)
	ctx := hosttest.Ctx(b)
	user, kernel := cpu()
	for i := 0; b.Loop(); i++ {
		s := endpoints[i*7%(n-1)].DeepCopy()
		if i%2 == 1 {
			s = endpoints[(i-1)*7%(n-1)]
		} else if what == oneMoved {
			s.Endpoints[2].Addresses[0] = "10.255.0.1"
		} else {
			s.Endpoints = s.Endpoints[1:]
		}
		m.SetSlice(s)
		d := m.Take()
		must(b, be.Apply(ctx, m.Table(), &d))
	}
	user2, kernel2 := cpu()
	b.ReportMetric(float64((user2-user).Microseconds())/float64(b.N), "user-µs/op")
	b.ReportMetric(float64((kernel2-kernel).Microseconds())/float64(b.N), "kernel-µs/op")
}

// BenchmarkConnect is the first packet of a flow from the node, to an endpoint and to
// services that lead to such.
func BenchmarkConnect(b *testing.B) {
	need.Have(b, need.Root)
	hosttest.Wire(b)
	lo, err := netlink.LinkByName("lo")
	must(b, err)
	const n = 1000
	services, endpoints := nettest.Many(n, 5)
	for i, s := range services {
		nettest.Port("dns", corev1.ProtocolUDP, 53, 0)(s)
		nettest.To("dns", corev1.ProtocolUDP, 5353)(endpoints[i])
		if i%2 == 1 {
			nettest.Affinity(10_800)(s)
		}
	}
	all := &stdnet.IPNet{IP: stdnet.IPv4(10, 128, 0, 0), Mask: stdnet.CIDRMask(16, 32)}
	here := netlink.Route{LinkIndex: lo.Attrs().Index, Dst: all, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Table: unix.RT_TABLE_LOCAL}
	must(b, netlink.RouteReplace(&here))
	b.Cleanup(func() { _ = netlink.RouteDel(&here) })
	l, err := stdnet.ListenPacket("udp4", ":5353") // it reads nothing: what is too much is dropped
	must(b, err)
	b.Cleanup(func() { l.Close() })
	be := backend(b, Config{})
	_, err = be.Sync(hosttest.Ctx(b), net.Build(services, endpoints, thisNode))
	must(b, err)
	for _, c := range []struct {
		name string
		to   func(i int) unix.SockaddrInet4
	}{
		{"an endpoint", func(i int) unix.SockaddrInet4 {
			return unix.SockaddrInet4{Addr: [4]byte{10, 128, byte(i % n / 250), byte(i%250 + 1)}, Port: 5353}
		}},
		{"a service", func(i int) unix.SockaddrInet4 { return serviceAt(2 * i % n) }},
		{"a service with affinity", func(i int) unix.SockaddrInet4 { return serviceAt((2*i + 1) % n) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			user, kernel := cpu()
			for i := 0; b.Loop(); i++ {
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
				must(b, err)
				to := c.to(i)
				must(b, unix.Sendto(fd, []byte("x"), 0, &to))
				must(b, unix.Close(fd))
			}
			user2, kernel2 := cpu()
			b.ReportMetric(float64((user2-user+kernel2-kernel).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

// serviceAt is the address of one of nettest.Many.
func serviceAt(i int) unix.SockaddrInet4 {
	return unix.SockaddrInet4{Addr: [4]byte{10, 96, byte(i / 250), byte(i%250 + 1)}, Port: 53}
}

// BenchmarkLook is a Sync that finds nothing to do.
func BenchmarkLook(b *testing.B) {
	need.Have(b, need.Root)
	services, endpoints := nettest.Many(10_000, 5)
	table := net.Build(services, endpoints, thisNode)
	be := backend(b, Config{})
	_, err := be.Sync(hosttest.Ctx(b), table)
	must(b, err)
	for b.Loop() {
		r, err := be.Sync(hosttest.Ctx(b), table)
		must(b, err)
		if r != (net.Report{}) {
			b.Fatalf("%+v", r)
		}
	}
}
