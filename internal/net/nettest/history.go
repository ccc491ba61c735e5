package nettest

import (
	"math/rand"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nodeagent/internal/net"
)

// History is a small world in which objects come, change and go, and a Model that is
// told what changes. Addresses and ports are often wanted twice, and some are nonsense.
type History struct {
	Dice     *rand.Rand
	Services map[net.Key]*corev1.Service
	Slices   map[net.Key]*discoveryv1.EndpointSlice
	Node     net.Node
	Ranges   []netip.Prefix // of which cluster IPs are drawn
	Model    *net.Model
}

// NewHistory begins with a node and nothing else.
func NewHistory(dice *rand.Rand, node net.Node) *History {
	return &History{dice, map[net.Key]*corev1.Service{}, map[net.Key]*discoveryv1.EndpointSlice{}, node, nil, net.NewModel(node)}
}

// Step changes one thing.
func (h *History) Step() {
	switch h.Dice.Intn(9) {
	case 0, 1, 2:
		h.SetService(RandomService(h.Dice))
	case 3:
		h.DeleteService(RandomServiceName(h.Dice))
	case 4, 5, 6, 7:
		h.SetSlice(RandomSlice(h.Dice))
	case 8:
		h.DeleteSlice(RandomSliceName(h.Dice))
	}
}

// Move changes the facts of the node, which has one or both of its addresses.
func (h *History) Move(all net.Node) {
	h.Node.Zone = string(rune('a' + h.Dice.Intn(3)))
	h.Node.Addrs = all.Addrs[:1+h.Dice.Intn(2)]
	h.Model.SetNode(h.Node)
}

// SetRanges draws some of all ranges, each in a ServiceCIDR of its own.
func (h *History) SetRanges(all []netip.Prefix) {
	h.Ranges = nil
	for _, p := range all {
		c := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: p.String()}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{p.String()}}}
		if h.Dice.Intn(3) == 0 {
			h.Model.DeleteServiceCIDR(c.Name)
			continue
		}
		h.Ranges = append(h.Ranges, p)
		h.Model.SetServiceCIDR(c)
	}
}

// SetService makes or changes one.
func (h *History) SetService(s *corev1.Service) {
	h.Services[net.Key{Namespace: s.Namespace, Name: s.Name}] = s
	h.Model.SetService(s)
}

// DeleteService takes one away, if it is there.
func (h *History) DeleteService(name string) {
	k := net.Key{Namespace: "default", Name: name}
	delete(h.Services, k)
	h.Model.DeleteService(k)
}

// SetSlice makes or changes one.
func (h *History) SetSlice(s *discoveryv1.EndpointSlice) {
	h.Slices[net.Key{Namespace: s.Namespace, Name: s.Name}] = s
	h.Model.SetSlice(s)
}

// DeleteSlice takes one away, if it is there.
func (h *History) DeleteSlice(name string) {
	k := net.Key{Namespace: "default", Name: name}
	delete(h.Slices, k)
	h.Model.DeleteSlice(k)
}

// Renew makes another cluster of it, free of conflicts and nonsense.
func (h *History) Renew() {
	for k := range h.Services {
		h.DeleteService(k.Name)
	}
	for k := range h.Slices {
		h.DeleteSlice(k.Name)
	}
	services, slices := RandomCluster(h.Dice)
	for _, s := range services {
		if h.Dice.Intn(3) == 0 {
			Ranges([][]string{{"192.168.0.0/30", "10.0.0.0/8", "fd00::/126"}, {"192.168.0.9/32", "fd00::8/125"}, {"2001:db8::/32"}, {"0.0.0.0/0"}}[h.Dice.Intn(4)]...)(s)
		}
		h.SetService(s)
	}
	for _, s := range slices {
		h.SetSlice(s)
	}
}

// Tape is a source of dice that plays bytes, then goes on evenly: with it the fuzzer
// throws them.
type Tape struct {
	data []byte
	n    uint64
}

// NewTape makes one of bytes.
func NewTape(data []byte) *Tape { return &Tape{data: data} }

// Seed does nothing.
func (s *Tape) Seed(int64) {}

// Int63 takes the next eight bytes.
func (s *Tape) Int63() int64 {
	var v uint64
	for range 8 {
		b := byte(s.n * 31)
		if s.n++; len(s.data) > 0 {
			b, s.data = s.data[0], s.data[1:]
		}
		v = v<<8 | uint64(b)
	}
	return int64(v >> 1)
}
