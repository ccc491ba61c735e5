package podnet

import (
	"context"
	"testing"
)

// BenchmarkSetupTeardown measures the whole of each, one after another, in a
// namespace that exists.
func BenchmarkSetupTeardown(b *testing.B) {
	for name, ports := range map[string][]PortMapping{
		"plain":    nil,
		"hostport": {{ContainerPort: 80, HostPort: 8080}},
		"udp":      {{ContainerPort: 80, HostPort: 8080, Protocol: "UDP"}},
	} {
		b.Run(name, func(b *testing.B) {
			h := newHost(b, dual...)
			n := h.start()
			p := h.newPod(ports...)
			ctx := context.Background()
			b.Run("setup", func(b *testing.B) {
				for range b.N {
					_, err := n.Setup(ctx, p.req)
					must(b, err)
					b.StopTimer()
					must(b, n.Teardown(ctx, p.req))
					b.StartTimer()
				}
			})
			b.Run("teardown", func(b *testing.B) {
				for range b.N {
					b.StopTimer()
					_, err := n.Setup(ctx, p.req)
					must(b, err)
					b.StartTimer()
					must(b, n.Teardown(ctx, p.req))
				}
			})
		})
	}
}

// BenchmarkReconcile measures the look at everything that a quiet minute costs,
// with 100 pods of one host port each.
func BenchmarkReconcile(b *testing.B) {
	h := newHost(b, dual...)
	n := h.start()
	var pods []*pod
	for i := range 100 {
		pods = append(pods, h.up(n, PortMapping{ContainerPort: 80, HostPort: int32(8000 + i)}))
	}
	b.ResetTimer()
	for range b.N {
		n.reconcile(context.Background())
	}
	b.StopTimer()
	h.down(n, pods...)
}
