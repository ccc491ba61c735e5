package iptables

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"

	"nodeagent/internal/net"
	"nodeagent/internal/net/hosttest"
	"nodeagent/internal/net/nettest"
	"nodeagent/internal/test/need"
)

// cpu is what this process, or its children that ended, used of processors.
func cpu(who int) time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(who, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// programs is what the programs of a backend used of processors, and those of all others
// that ended: one that stays is asked by itself.
func programs(be *Backend) time.Duration {
	out := cpu(syscall.RUSAGE_CHILDREN)
	for _, f := range be.feeds {
		if f.fed == nil {
			continue
		}
		var ns time.Duration
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", f.fed.c.Process.Pid)); err == nil {
			_, _ = fmt.Sscan(string(stat), &ns)
		}
		out += ns
	}
	return out
}

// spent reports what was used since then.
func spent(b *testing.B, be *Backend, own, children time.Duration) {
	b.ReportMetric(float64((cpu(syscall.RUSAGE_SELF)-own).Microseconds())/float64(b.N), "own-cpu-µs/op")
	b.ReportMetric(float64((programs(be)-children).Microseconds())/float64(b.N), "children-cpu-µs/op")
}

var sizes = []int{100, 1000, 10_000}

func eachSize(b *testing.B, f func(*testing.B, Flavour, int)) {
	need.Have(b, need.Root)
	for _, flavour := range flavours {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("%s/%d", flavour, n), func(b *testing.B) { f(b, flavour, n) })
		}
	}
}

func long(b *testing.B) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	b.Cleanup(cancel)
	return ctx
}

// BenchmarkProgram programs all services of 5 endpoints at once into an empty
// kernel.
func BenchmarkProgram(b *testing.B) {
	eachSize(b, func(b *testing.B, flavour Flavour, n int) {
		services, endpoints := nettest.Many(n, 5)
		table := net.Build(services, endpoints, thisNode)
		be := backend(b, Config{Flavour: flavour})
		own, children := time.Duration(0), time.Duration(0)
		for b.Loop() {
			b.StopTimer()
			must(b, be.Remove(long(b)))
			b.StartTimer()
			own, children = cpu(syscall.RUSAGE_SELF), programs(be)
			_, err := be.Sync(long(b), table)
			must(b, err)
		}
		b.ReportMetric(float64((cpu(syscall.RUSAGE_SELF) - own).Milliseconds()), "own-cpu-ms")
		b.ReportMetric(float64((programs(be) - children).Milliseconds()), "children-cpu-ms")
	})
}

// BenchmarkFlushed mends the table nat, which somebody else flushed, while we watch: from
// before his program begins. flush-ms is how long that took by itself.
func BenchmarkFlushed(b *testing.B) {
	eachSize(b, func(b *testing.B, flavour Flavour, n int) {
		services, endpoints := nettest.Many(n, 5)
		table := net.Build(services, endpoints, thisNode)
		be := backend(b, Config{Flavour: flavour})
		wakes := hosttest.Watch(b, be)
		woken(b, wakes, "the start")
		_, err := be.Sync(long(b), table)
		must(b, err)
		own, children, flush := cpu(syscall.RUSAGE_SELF), programs(be), time.Duration(0)
		for b.Loop() {
			begun := time.Now()
			command(b, "iptables", flavour, "", "-t", nat, "-F")
			flush += time.Since(begun)
			woken(b, wakes, "a flush")
			r, err := be.Sync(long(b), table)
			must(b, err)
			if r.Elements < n {
				b.Fatalf("mended is %+v", r)
			}
		}
		spent(b, be, own, children)
		b.ReportMetric(float64(flush.Milliseconds())/float64(b.N), "flush-ms")
	})
}

// loaded is a backend that watches, and has written n services of 5 endpoints.
func loaded(b *testing.B, flavour Flavour, n int) (*Backend, *net.Model, []*discoveryv1.EndpointSlice) {
	services, endpoints := nettest.Many(n, 5)
	m := nettest.Filled(thisNode, services, endpoints)
	be := backend(b, Config{Flavour: flavour})
	woken(b, hosttest.Watch(b, be), "the start")
	_, err := be.Sync(long(b), m.Table())
	must(b, err)
	return be, m, endpoints
}

// BenchmarkBurst replaces an endpoint of each of several services at once.
func BenchmarkBurst(b *testing.B) {
	need.Have(b, need.Root)
	const n = 10_000
	for _, many := range []int{20, 200, 1000} {
		b.Run(fmt.Sprint(many), func(b *testing.B) {
			be, m, endpoints := loaded(b, NFT, n)
			own, children := cpu(syscall.RUSAGE_SELF), programs(be)
			for i := 0; b.Loop(); i++ {
				for k := range many {
					s := endpoints[k*7919%n].DeepCopy() // all over the trees
					if i%2 == 0 {
						s.Endpoints[k%5].Addresses[0] = fmt.Sprintf("10.%d.%d.%d", 130+k%120, k/250, 1+k%250)
					}
					m.SetSlice(s)
				}
				d := m.Take()
				must(b, be.Apply(long(b), m.Table(), &d))
			}
			spent(b, be, own, children)
		})
	}
}

// BenchmarkChange moves one endpoint among n services, while we watch: the time until
// the kernel has it, and what it costs of processors.
func BenchmarkChange(b *testing.B) { eachSize(b, benchChange) }

func benchChange(b *testing.B, flavour Flavour, n int) {
	be, m, endpoints := loaded(b, flavour, n)
	ctx := long(b)
	own, children := cpu(syscall.RUSAGE_SELF), programs(be)
	for i := 0; b.Loop(); i++ {
		s := endpoints[i*7%n].DeepCopy()
		if i%2 == 1 {
			s = endpoints[(i-1)*7%n]
		} else {
			s.Endpoints[2].Addresses[0] = "10.255.0.1"
		}
		m.SetSlice(s)
		d := m.Take()
		must(b, be.Apply(ctx, m.Table(), &d))
	}
	spent(b, be, own, children)
}

// BenchmarkService adds a service among n, and takes it away again: what that costs of
// processors, programs included, is told apart.
func BenchmarkService(b *testing.B) {
	eachSize(b, func(b *testing.B, flavour Flavour, n int) {
		services, endpoints := nettest.Many(n, 5)
		m := nettest.Filled(thisNode, services, endpoints)
		be := backend(b, Config{Flavour: flavour})
		_, err := be.Sync(long(b), m.Table())
		must(b, err)
		ctx := long(b)
		var used [2]time.Duration
		i := 0
		for ; b.Loop(); i++ {
			before := cpu(syscall.RUSAGE_SELF) + programs(be)
			if i%2 == 0 {
				m.DeleteService(net.Key{Namespace: "default", Name: services[0].Name})
			} else {
				m.SetService(services[0])
			}
			d := m.Take()
			must(b, be.Apply(ctx, m.Table(), &d))
			used[i%2] += cpu(syscall.RUSAGE_SELF) + programs(be) - before
		}
		b.ReportMetric(float64(used[0].Microseconds())/float64((i+1)/2), "went-cpu-µs/op")
		b.ReportMetric(float64(used[1].Microseconds())/float64(max(i/2, 1)), "came-cpu-µs/op")
	})
}

// BenchmarkBare is one run of iptables-restore that writes one chain of endpoints again
// among n services: what no change can be below.
func BenchmarkBare(b *testing.B) {
	eachSize(b, func(b *testing.B, flavour Flavour, n int) {
		services, endpoints := nettest.Many(n, 5)
		table := net.Build(services, endpoints, thisNode)
		be := backend(b, Config{Flavour: flavour})
		_, err := be.Sync(long(b), table)
		must(b, err)
		slot := be.layouts[0].slots[0]
		name := slotOf(be.layouts[0], table.Sorted()[0], 0)
		text := job{{table: nat, write: []rewrite{{chain: chain{nat, name, slot.rules(slot.nodes[name])}}}}}.text()
		children := cpu(syscall.RUSAGE_CHILDREN)
		for b.Loop() {
			c := exec.Command("iptables-"+string(flavour)+"-restore", "--noflush", "-w", "5")
			c.Stdin, c.Stdout = bytes.NewReader(text), io.Discard
			must(b, c.Run())
		}
		b.ReportMetric(float64((cpu(syscall.RUSAGE_CHILDREN)-children).Microseconds())/float64(b.N), "children-cpu-µs/op")
	})
}

// BenchmarkLook is a Sync that finds nothing to do, and what Watch does for the
// legacy flavour: counts of the rules twice a second, and a digest of them now and
// then.
func BenchmarkLook(b *testing.B) {
	need.Have(b, need.Root)
	for _, flavour := range flavours {
		b.Run(string(flavour), func(b *testing.B) {
			services, endpoints := nettest.Many(10_000, 5)
			table := net.Build(services, endpoints, thisNode)
			be := backend(b, Config{Flavour: flavour})
			_, err := be.Sync(long(b), table)
			must(b, err)
			own, children := cpu(syscall.RUSAGE_SELF), programs(be)
			for b.Loop() {
				r, err := be.Sync(long(b), table)
				must(b, err)
				if r != (net.Report{}) {
					b.Fatalf("%+v", r)
				}
			}
			spent(b, be, own, children)
			if flavour != Legacy {
				return
			}
			start := time.Now()
			for range 5 {
				be.left.markOf(ipv4, nat)
			}
			b.ReportMetric(float64(time.Since(start).Microseconds())/5, "digest-µs")
			start = time.Now()
			for range 100 {
				_, err := countsOf(ipv4, nat)
				must(b, err)
			}
			b.ReportMetric(float64(time.Since(start).Microseconds())/100, "counts-µs")
		})
	}
}

// BenchmarkPlan is the pure part of a Sync.
func BenchmarkPlan(b *testing.B) {
	services, endpoints := nettest.Many(10_000, 5)
	table := net.Build(services, endpoints, thisNode)
	be, err := New(Config{Pods: pods})
	must(b, err)
	for b.Loop() {
		n := 0
		be.plan(table)[0].each(table, func(c chain) { n += len(c.rules) })
		b.ReportMetric(float64(n), "rules")
	}
}
