package iptables

import (
	"fmt"
	"math/rand"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"nodeagent/internal/net"
	"nodeagent/internal/net/hosttest"
	. "nodeagent/internal/net/nettest"
)

// TestBranched: with so many services that trees branch by ports and addresses, packets end
// as the table says, in both families, whatever came before.
func TestBranched(t *testing.T) {
	for seed := range int64(3) {
		dice := rand.New(rand.NewSource(seed))
		m := net.NewModel(thisNode)
		p := onPaper(t, Config{})
		p.sync(t, NFT, m.Table())
		for turn := range 8 {
			for range 240 {
				i := dice.Intn(1000)
				name := fmt.Sprintf("s%d", i)
				if dice.Intn(10) < turn {
					m.DeleteService(net.Key{Namespace: "default", Name: name})
					m.DeleteSlice(net.Key{Namespace: "default", Name: name + "-1"})
					continue
				}
				m.SetService(anyService(dice, name, i))
				m.SetSlice(anySlice(dice, name, i, false))
				s6 := anySlice(dice, name, i, true)
				s6.Name += "v6"
				m.SetSlice(s6)
			}
			if dice.Intn(3) == 0 {
				m.SetServiceCIDR(servicesOf([][]string{{"10.96.0.0/15"}, {"10.97.0.0/16", "fd96::/112"}, {}}[dice.Intn(3)]...))
			}
			d := m.Take()
			if d.Ranges {
				p.sync(t, NFT, m.Table())
			} else {
				p.apply(t, NFT, &d)
			}
		}
		if r := p.sync(t, NFT, m.Table()); r != (net.Report{}) {
			t.Fatalf("seed %d: a new start had to do %+v", seed, r)
		}
		told := Told{Table: m.Table(), NodeAddrs: nodeAddr, Pods: pods}
		all := m.Table().Sorted()
		for k := range 400 {
			e := all[dice.Intn(len(all))]
			to := e.Addr
			switch k % 5 {
			case 1:
				to.Port = all[dice.Intn(len(all))].Addr.Port
			case 2:
				to.Proto = all[dice.Intn(len(all))].Addr.Proto
			case 3:
				to.Port ^= 1
			case 4:
				if to.IP.Is4() {
					to.IP = netip.AddrFrom4([4]byte{10, byte(96 + dice.Intn(3)), byte(dice.Intn(4)), byte(dice.Intn(256))})
				} else {
					to.IP = netip.AddrFrom16([16]byte{0xfd, 0x96, 13: byte(dice.Intn(2)), 14: byte(dice.Intn(3)), 15: byte(dice.Intn(256))})
				}
			}
			kernel, from := p.kernels[0], []string{"10.0.99.99", "192.168.0.9"}
			if to.IP.Is6() {
				kernel, from = p.kernels[1], []string{"fd10::99", "fd00::9"}
			}
			for _, s := range from {
				a := netip.MustParseAddr(s)
				want := map[fate]float64{}
				f := told.Ask(a, to)
				for _, x := range f.To {
					want[fate{f.What, x, f.Masked}] += 1 / float64(len(f.To))
				}
				if len(f.To) == 0 {
					want[fate{what: f.What}] = 1
				}
				got := newTracer(kernel).trace(packet{src: a, dst: to.IP, proto: strings.ToLower(to.Proto.String()), dport: int(to.Port)}, slices.Contains(nodeAddr, a))
				for x, n := range want {
					if d := got[x] - n; d > 1e-6 || d < -1e-6 {
						t.Fatalf("seed %d: %s calls %s: %v, want %v", seed, a, to, got, want)
					}
				}
				for x, n := range got {
					if d := want[x] - n; d > 1e-6 || d < -1e-6 {
						t.Fatalf("seed %d: %s calls %s: %v, want %v", seed, a, to, got, want)
					}
				}
			}
		}
	}
}

var manyPorts = []int32{1, 15, 16, 80, 255, 256, 443, 4095, 4096, 8080, 8081, 8191, 32767, 61439, 61440, 65535}

// portOf has many of two ports, some of two neighbours, and some of all others.
func portOf(i, j int) int32 {
	switch {
	case i%4 > 1:
		return []int32{80, 65535}[(i/4+j)%2]
	case i%8 == 1: // neighbours, beside so many others that a chain is for both of them
		return []int32{96, 97}[(i/8+j)%2]
	}
	return manyPorts[(i+5*j)%len(manyPorts)]
}

func anyService(dice *rand.Rand, name string, i int) *corev1.Service {
	np := func(j int) int32 {
		if i%6 == 0 {
			return int32(30000 + 3*i + j)
		}
		return 0
	}
	ip4 := fmt.Sprintf("10.%d.%d.%d", 96+i%3, i/3%4, i/12+1)
	ip6 := fmt.Sprintf("fd96::%x:%x", i%2, i/2*7+1)
	s := Service(name, []string{ip4, ip6})
	kinds := []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}
	for j := range 1 + i%3 {
		Port(fmt.Sprint("p", j), kinds[dice.Intn(3)], portOf(i, j), np(j))(s)
	}
	if i%7 == 0 {
		Affinity(60)(s)
	}
	if i%5 == 0 {
		LocalInside(s)
	}
	return s
}

func anySlice(dice *rand.Rand, name string, i int, v6 bool) *discoveryv1.EndpointSlice {
	var parts []func(*discoveryv1.EndpointSlice)
	for j := range 3 {
		for _, k := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP} {
			parts = append(parts, To(fmt.Sprint("p", j), k, int32(8000+j)))
		}
	}
	for j := range dice.Intn(12) {
		a := fmt.Sprintf("10.0.%d.%d", i%100, j+1)
		if v6 {
			a = fmt.Sprintf("fd10::%x:%x", i, j+1)
		}
		parts = append(parts, At(a, []string{"here", "there", "there"}[dice.Intn(3)]))
	}
	s := Slice(name+"-1", name, parts...)
	if v6 {
		s.AddressType = discoveryv1.AddressTypeIPv6
	}
	return s
}

// TestBranchedInKernel: what is written of ports and protocols all over is printed as it was
// written, by both programs and of both families.
func TestBranchedInKernel(t *testing.T) {
	eachFlavour(t, func(t *testing.T, flavour Flavour) {
		dice := rand.New(rand.NewSource(1))
		m := net.NewModel(thisNode)
		for i := range 1500 {
			name := fmt.Sprintf("s%d", i)
			m.SetService(anyService(dice, name, i))
			m.SetSlice(anySlice(dice, name, i, false))
			s6 := anySlice(dice, name, i, true)
			s6.Name += "v6"
			m.SetSlice(s6)
		}
		m.SetServiceCIDR(servicesOf("10.96.0.0/15", "fd96::/112"))
		m.Take()
		b := backend(t, Config{Flavour: flavour})
		_, err := b.Sync(hosttest.Ctx(t), m.Table())
		must(t, err)
		list := dump(t, flavour)
		for _, want := range []string{"-p tcp -m tcp --dport 0:4095 -g", "-p sctp -m sctp --dport 61440:65535 -g", "-p udp -m udp --dport 4096:8191 -g", "-p tcp -m tcp --dport 65535 -g"} {
			if !strings.Contains(list, want) {
				t.Errorf("there is no %q", want)
			}
		}
		fresh, err := New(b.cfg)
		must(t, err)
		if r, err := fresh.Sync(hosttest.Ctx(t), m.Table()); err != nil || r != (net.Report{}) {
			t.Errorf("a new start had to do %+v, %v", r, err)
		}
		ground := net.Ground{Mode: "iptables"}
		ground.Held, err = fresh.Held(hosttest.Ctx(t))
		must(t, err)
		wrong := map[string]int{}
		for i := range 1500 {
			f := m.Facts(net.Key{Namespace: "default", Name: fmt.Sprintf("s%d", i)})
			for _, a := range net.ExplainService(f, net.Loop{Mode: "iptables", Begun: true}, ground).Addresses {
				if a.Kernel != "present" {
					wrong[a.Kind+" "+a.Inside+" "+a.Kernel]++
				}
			}
		}
		if len(wrong) > 0 {
			t.Errorf("explain finds amiss %v", wrong)
		}
	})
}
