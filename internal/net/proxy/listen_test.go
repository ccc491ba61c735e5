package proxy

import (
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// hearsay is what a Listener knows.
type hearsay struct{ all, fresh map[string]bool }

func (h *hearsay) Begin() { h.fresh = map[string]bool{} }

func (h *hearsay) Tell(s *corev1.Service, gone bool) {
	to := h.all
	if h.fresh != nil {
		to = h.fresh
	}
	if delete(to, s.Name); !gone {
		to[s.Name] = true
	}
}

func (h *hearsay) Complete() { h.all, h.fresh = h.fresh, nil }

func (h *hearsay) names() []string { return slices.Sorted(maps.Keys(h.all)) }

// TestListener: who listens hears of all Services, also after a watch that began anew; the
// rules have those that a proxy serves, by the labels that they have now.
func TestListener(t *testing.T) {
	for _, old := range []bool{false, true} {
		play(t, func(s *scene) {
			heard := &hearsay{}
			s.change = func(cfg *Config) { cfg.Listener = heard }
			s.noStream = old
			labelled := func(n int, labels map[string]string) metav1.Object {
				o := web(n, 1)[0]
				o.SetLabels(labels)
				return o
			}
			all := webs(4, 1)
			s.put(all...)
			s.put(labelled(1, map[string]string{headlessLabel: ""}), labelled(2, map[string]string{proxyLabel: "mesh"}))
			s.begin()
			s.after(0)
			s.want("heard of at first", heard.names(), []string{"web-0000", "web-0001", "web-0002", "web-0003"})
			s.want("served at first", s.names(), []string{"web-0000", "web-0003"})
			s.put(labelled(3, map[string]string{proxyLabel: "mesh"}), labelled(2, nil))
			s.after(0)
			s.want("served when labels have changed", s.names(), []string{"web-0000", "web-0002"})
			s.remove(all[0])
			s.cut()
			s.compact()
			s.after(2 * time.Minute)
			s.want("heard of after a gap", heard.names(), []string{"web-0001", "web-0002", "web-0003"})
			s.want("served after a gap", s.names(), []string{"web-0002"})
		})
	}
}
