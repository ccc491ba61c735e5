package node

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/version"

	"nodeagent/internal/node/machine"
	"nodeagent/internal/pod"
)

func addrs(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// TestAddresses holds the order of choice.
func TestAddresses(t *testing.T) {
	local := addrs("192.0.2.10", "192.0.2.11", "2001:db8::10", "127.0.0.1", "fe80::1")
	for _, c := range []struct {
		name string
		in   AddressInputs
		want string // "": an error
	}{
		{"given", AddressInputs{Given: addrs("192.0.2.11"), Routed: addrs("192.0.2.10")}, "192.0.2.11"},
		{"given, both families", AddressInputs{Given: addrs("2001:db8::10", "192.0.2.10")}, "2001:db8::10 192.0.2.10"},
		{"given, of another host", AddressInputs{Given: addrs("192.0.2.99")}, ""},
		{"given, loopback", AddressInputs{Given: addrs("127.0.0.1")}, ""},
		{"given, link-local", AddressInputs{Given: addrs("fe80::1")}, ""},
		{"given, multicast", AddressInputs{Given: addrs("224.0.0.1")}, ""},
		{"family given", AddressInputs{Given: addrs("::"), Routed: addrs("192.0.2.10", "2001:db8::10")}, "2001:db8::10"},
		{"the hostname is one", AddressInputs{Hostname: "198.51.100.1", Routed: addrs("192.0.2.10")}, "198.51.100.1"},
		{"resolved", AddressInputs{Named: addrs("127.0.1.1", "2001:db8::10", "192.0.2.11"), Routed: addrs("192.0.2.10")}, "192.0.2.11"},
		{"resolved to elsewhere", AddressInputs{Named: addrs("203.0.113.1"), Routed: addrs("192.0.2.10")}, "192.0.2.10"},
		{"only the other family", AddressInputs{Routed: addrs("2001:db8::10")}, "2001:db8::10"},
		{"nothing", AddressInputs{Named: addrs("127.0.1.1")}, ""},
		{"a cloud's", AddressInputs{ExternalCloud: true, Routed: addrs("192.0.2.10")}, "-"},
		{"a cloud's, given", AddressInputs{ExternalCloud: true, Given: addrs("192.0.2.10")}, "192.0.2.10"},
		{"a cloud's, family given", AddressInputs{ExternalCloud: true, Given: addrs("0.0.0.0"), Routed: addrs("192.0.2.10")}, "192.0.2.10"},
	} {
		c.in.Local = local
		if c.in.Hostname == "" {
			c.in.Hostname = "node"
		}
		all, err := Addresses(c.in)
		var got []string
		for _, a := range all {
			if a.Type == corev1.NodeInternalIP {
				got = append(got, a.Address)
			}
		}
		text := strings.Join(got, " ")
		if c.want == "-" && text == "" && len(all) == 1 {
			continue
		}
		if text != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s: %q, %v, want %q", c.name, text, err, c.want)
		}
		if err == nil && all[len(all)-1] != (corev1.NodeAddress{Type: corev1.NodeHostName, Address: c.in.Hostname}) {
			t.Errorf("%s: the hostname is not the last of %v", c.name, all)
		}
	}
}

// TestLabels: a node gives itself no label that others trust.
func TestLabels(t *testing.T) {
	for label, good := range map[string]bool{
		"team=a": true, "example.com/x=y": true, "node.kubernetes.io/pool=a": true, "a.node.kubernetes.io/pool=a": true,
		"kubelet.kubernetes.io/x=y": true, "kubernetes.io/arch=arm64": true, "topology.kubernetes.io/zone=z": true,
		"node-restriction.kubernetes.io/x=y": false, "kubernetes.io/x=y": false, "x.k8s.io/y=z": false,
		"node-role.kubernetes.io/control-plane=": false,
		"bad key=x":                              false, "a=b c": false, "a=" + strings.Repeat("x", 64): false,
	} {
		key, value, _ := strings.Cut(label, "=")
		if err := CheckLabels(map[string]string{key: value}); (err == nil) != good {
			t.Errorf("%s: %v", label, err)
		}
	}
}

// TestVersion: whatever ours is, the whole can be parsed, and is of the level.
func TestVersion(t *testing.T) {
	for ours, want := range map[string]string{
		"dev": "v1.36.3+nodeagent.dev", "0.4.0": "v1.36.3+nodeagent.0.4.0", "v0.4.0-3-gabc+dirty": "v1.36.3+nodeagent.v0.4.0-3-gabc-dirty",
		"": "v1.36.3+nodeagent.dev", "..": "v1.36.3+nodeagent.dev", "a..b": "v1.36.3+nodeagent.a.b", "é/b": "v1.36.3+nodeagent.b",
	} {
		got := Version("v1.36.3", ours)
		if got != want {
			t.Errorf("%q: %q, want %q", ours, got, want)
		}
		if v, err := version.ParseSemantic(got); err != nil || v.Minor() != 36 {
			t.Errorf("%q: %v", got, err)
		}
	}
}

// TestCapacity: what the scheduler is told.
func TestCapacity(t *testing.T) {
	m := machine.Machine{CPUs: 4, Memory: 8 << 30, HugePages: map[int64]int64{2 << 20: 3, 1 << 30: 0}, PIDs: 1000}
	c := Capacity(m, 1<<30, 110, 10)
	for name, want := range map[corev1.ResourceName]string{
		"cpu": "4", "memory": "8Gi", "pods": "40", "ephemeral-storage": "1Gi", "hugepages-2Mi": "6Mi", "hugepages-1Gi": "0",
	} {
		if q := c[name]; q.String() != want {
			t.Errorf("%s is %s, want %s", name, q.String(), want)
		}
	}
	if c := Capacity(m, 0, 110, 0); len(c) != 5 || c.Pods().Value() != 110 {
		t.Errorf("without storage and pods a core: %v", c)
	}
	r, err := pod.ParseReserved(pod.ReservedConfig{System: map[string]string{"pid": "100"}})
	if err != nil {
		t.Fatal(err)
	}
	if q := r.Enforced(Internal(c, m, r))[pod.ResourcePIDs]; q.Value() != 900 {
		t.Errorf("all pods together may have %s processes", q.String())
	}
	if _, limited := Internal(c, m, pod.Reserved{})[pod.ResourcePIDs]; limited {
		t.Error("nothing is reserved, but there is a limit")
	}
}
