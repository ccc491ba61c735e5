//go:build failpoints

package podnet

import (
	"context"
	"strings"
	"testing"

	"nodeagent/internal/failpoint"
)

// placesOf returns the fail-points of a pod's network, by who makes it.
func placesOf(cni bool) []failpoint.Name {
	var out []failpoint.Name
	for _, name := range failpoint.All() {
		s := string(name)
		switch {
		case strings.HasPrefix(s, "podnet/cni-"), strings.HasPrefix(s, "durable/"):
			if !cni {
				continue
			}
		case strings.HasPrefix(s, "podnet/record"), strings.HasPrefix(s, "podnet/forget"):
		case strings.HasPrefix(s, "podnet/"):
			if cni {
				continue
			}
		default:
			continue
		}
		out = append(out, name)
	}
	return out
}

// TestKilledAnywhere: the daemon dies at each fail-point of Setup and Teardown,
// and the next one sets up, tears down, or prunes. Whichever: it works, and
// afterwards nothing is left.
func TestKilledAnywhere(t *testing.T) {
	ctx := context.Background()
	next := map[string]func(*testing.T, *host, *Network, *pod){
		"setup": func(t *testing.T, h *host, n *Network, p *pod) {
			res, err := n.Setup(ctx, p.req)
			must(t, err)
			if n.record(p.req.SandboxID).CNI == nil {
				serve(t, p.netns, "tcp", "a", 80)
				wantAnswer(t, h.outside, "tcp", nodeAddr4, 8080, "a", outsideAddr4)
				wantAnswer(t, nil, "tcp", res.Addrs[1], 80, "a", n.pool.spans[1].gateway)
			}
			must(t, n.Teardown(ctx, p.req))
		},
		"teardown": func(t *testing.T, _ *host, n *Network, p *pod) { must(t, n.Teardown(ctx, p.req)) },
		"prune": func(t *testing.T, _ *host, n *Network, p *pod) {
			p.delete()
			must(t, n.Prune(ctx, none))
		},
	}
	for _, cni := range []bool{false, true} {
		for _, place := range placesOf(cni) {
			for what, then := range next {
				t.Run(string(place)+" "+what, func(t *testing.T) {
					h := hostOf(t, cni)
					p := h.newPod(PortMapping{ContainerPort: 80, HostPort: 8080})
					if code := h.die(t, p.req, true, string(place)+"=kill"); code != -1 {
						t.Fatalf("the daemon was not killed there: exit %d", code)
					}
					then(t, h, h.start(), p)
				})
			}
		}
	}
}

// TestFailsAnywhere: each step fails once; a Setup that fails leaves nothing,
// and a Teardown that fails is done by the next one.
func TestFailsAnywhere(t *testing.T) {
	for _, cni := range []bool{false, true} {
		for _, place := range placesOf(cni) {
			t.Run(string(place), func(t *testing.T) {
				h := hostOf(t, cni)
				p := h.newPod(PortMapping{ContainerPort: 80, HostPort: 8080})
				code := h.die(t, p.req, true, string(place)+"=1*error(told)")
				if code != 3 {
					t.Fatalf("exit %d", code)
				}
				n := h.start()
				must(t, n.Teardown(context.Background(), p.req))
			})
		}
	}
}

func hostOf(t *testing.T, cni bool) *host {
	if !cni {
		return newHost(t, dual...)
	}
	h, _, _ := cniHost(t)
	return h
}
