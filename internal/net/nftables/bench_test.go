package nftables

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"nodeagent/internal/net"
	"nodeagent/internal/net/hosttest"
	"nodeagent/internal/net/nettest"
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

// BenchmarkChange moves one endpoint among n services: the time until the
// kernel has it, and what it costs of processors.
func BenchmarkChange(b *testing.B) {
	need.Have(b, need.Root)
	for _, what := range []string{oneMoved, oneGone, oneAlone} {
		for _, n := range []int{100, 1000, 10_000} {
			b.Run(fmt.Sprintf("%s/%d", what, n), func(b *testing.B) { benchChange(b, n, what) })
		}
	}
}

const (
	oneMoved = "moved"
	oneGone  = "gone and back"                 // other services have as many endpoints
	oneAlone = "gone and back, a number alone" // no other service has
)

func benchChange(b *testing.B, n int, what string) {
	services, endpoints := nettest.Many(n, 5)
	if what == oneGone {
		endpoints[n-1].Endpoints = endpoints[n-1].Endpoints[1:]
	}
	m := net.NewModel(thisNode)
	for i := range services {
		m.SetService(services[i])
		m.SetSlice(endpoints[i])
	}
	m.Take()
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
