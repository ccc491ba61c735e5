package net_test

import (
	"runtime"
	"testing"

	"nodeagent/internal/net"
	"nodeagent/internal/net/nettest"
)

// BenchmarkMemory prints the bytes that 10 000 services of 5 endpoints take,
// with all that the model keeps of the objects; nobody has to keep those.
func BenchmarkMemory(b *testing.B) {
	services, endpoints := nettest.Many(10_000, 5)
	for range b.N {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		m := net.NewModel(node)
		fill(m, services, endpoints)
		m.Take()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB")
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/50_000, "B/endpoint")
		runtime.KeepAlive(m)
	}
	runtime.KeepAlive(services)
	runtime.KeepAlive(endpoints)
}

// BenchmarkBuild makes the table of 10 000 services at once.
func BenchmarkBuild(b *testing.B) {
	services, endpoints := nettest.Many(10_000, 5)
	for b.Loop() {
		net.Build(services, endpoints, node)
	}
}

// BenchmarkChange changes one endpoint of one service among 10 000.
func BenchmarkChange(b *testing.B) {
	services, endpoints := nettest.Many(10_000, 5)
	m := net.NewModel(node)
	fill(m, services, endpoints)
	m.Take()
	s := endpoints[77].DeepCopy()
	few := s.DeepCopy()
	few.Endpoints = few.Endpoints[1:]
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%2 == 0 {
			m.SetSlice(few)
		} else {
			m.SetSlice(s)
		}
		if d := m.Take(); len(d.Entries) != 1 {
			b.Fatal(len(d.Entries))
		}
	}
}
