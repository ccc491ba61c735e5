package proxy

import (
	"runtime"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/net/nettest"
	"nodeagent/internal/test/need"
)

// TestMemory: ten thousand services with fifty thousand endpoints, and all that is
// kept of them, fit in 25 MB.
func TestMemory(t *testing.T) {
	need.Have(t, need.NoRace)
	play(t, func(s *scene) {
		services, endpoints := nettest.Many(10_000, 5)
		var all []metav1.Object
		for i := range services {
			services[i].UID = types.UID("12345678-1234-1234-1234-" + services[i].Name[len(services[i].Name)-5:] + "0000000")
			all = append(all, services[i], endpoints[i])
		}
		s.put(all...)
		s.server(func() { s.history = nil })
		before := heap()
		s.begin()
		s.want("the start", s.told(), []string{"sync 10000"})
		used := heap() - before
		t.Logf("%.1f MB", float64(used)/1e6)
		if used > 25e6 {
			t.Errorf("%d bytes are kept", used)
		}
		runtime.KeepAlive(s.proxy)
	})
}

func heap() int64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
