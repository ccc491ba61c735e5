package etc

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestResolve(t *testing.T) {
	str := func(s string) *string { return &s }
	node := ResolvConf{Servers: []string{"192.0.2.53"}, Searches: []string{"corp.example", "cluster.local"}, Options: []string{"timeout:1"}}
	full := DNS{ClusterDNS: []string{"198.51.100.10"}, ClusterDomain: "cluster.local", Node: node}
	cluster := ResolvConf{Servers: full.ClusterDNS, Searches: []string{"shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"}, Options: []string{"ndots:5"}}
	policy := func(p corev1.DNSPolicy) *corev1.Pod {
		return pod("web", func(s *corev1.PodSpec) { s.DNSPolicy = p })
	}
	onHost := func(p corev1.DNSPolicy) *corev1.Pod {
		return pod("web", func(s *corev1.PodSpec) { s.DNSPolicy, s.HostNetwork = p, true })
	}
	own := &corev1.PodDNSConfig{
		Nameservers: []string{"192.0.2.99", "198.51.100.10"},
		Searches:    []string{"my.example", "cluster.local"},
		Options:     []corev1.PodDNSConfigOption{{Name: "ndots", Value: str("2")}, {Name: "edns0"}, {Name: "use-vc", Value: str("")}},
	}
	for _, tc := range []struct {
		name string
		pod  *corev1.Pod
		dns  DNS
		want ResolvConf
		warn []string
	}{
		{"ClusterFirst", policy(corev1.DNSClusterFirst), full, cluster, nil},
		{"unknown policy", policy("Sometimes"), full, cluster, nil},
		{"ClusterFirst on the host network", onHost(corev1.DNSClusterFirst), full, node, nil},
		{"ClusterFirstWithHostNet", onHost(corev1.DNSClusterFirstWithHostNet), full, cluster, nil},
		{"Default", policy(corev1.DNSDefault), full, node, nil},
		{"None", pod("web", func(s *corev1.PodSpec) { s.DNSPolicy, s.DNSConfig = corev1.DNSNone, own }), full,
			ResolvConf{Servers: own.Nameservers, Searches: own.Searches, Options: []string{"ndots:2", "edns0", "use-vc"}}, nil},
		{"no cluster DNS", policy(corev1.DNSClusterFirst), DNS{Node: node, ClusterDomain: "cluster.local"}, node, []string{ReasonMissingClusterDNS}},
		{"no cluster DNS, host network", onHost(corev1.DNSClusterFirstWithHostNet), DNS{Node: node}, node, []string{ReasonMissingClusterDNS}},
		{"no cluster domain", policy(corev1.DNSClusterFirst), DNS{ClusterDNS: full.ClusterDNS, Node: node},
			ResolvConf{Servers: full.ClusterDNS, Searches: node.Searches, Options: []string{"ndots:5"}}, nil},
		{"dnsConfig is merged", pod("web", func(s *corev1.PodSpec) { s.DNSConfig = own }), full, ResolvConf{
			Servers:  []string{"198.51.100.10", "192.0.2.99"},
			Searches: []string{"shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example", "my.example"},
			Options:  []string{"ndots:2", "edns0", "use-vc"},
		}, nil},
		{"resolvConf is empty", policy(corev1.DNSDefault), DNS{Node: node, NoNodeFile: true, NodeIPs: []string{"192.0.2.1", "2001:db8::1"}},
			ResolvConf{Servers: []string{"127.0.0.1", "::1"}, Searches: []string{"."}}, nil},
		{"resolvConf is empty, no node address", policy(corev1.DNSDefault), DNS{NoNodeFile: true},
			ResolvConf{Servers: []string{"127.0.0.1"}, Searches: []string{"."}}, nil},
		{"four servers", policy(corev1.DNSDefault), DNS{Node: ResolvConf{Servers: []string{"1", "2", "3", "4"}}},
			ResolvConf{Servers: []string{"1", "2", "3"}}, []string{ReasonDNSConfigForming}},
		{"an option is no second way in", pod("web", func(s *corev1.PodSpec) {
			s.DNSConfig = &corev1.PodDNSConfig{Options: []corev1.PodDNSConfigOption{{Name: "a\nnameserver", Value: str("192.0.2.66")}, {Name: "b", Value: str("1\n2")}, {Name: "edns0"}}}
		}), full, ResolvConf{Servers: cluster.Servers, Searches: cluster.Searches, Options: []string{"ndots:5", "edns0"}}, []string{ReasonDNSConfigForming}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, warnings := Resolve(tc.pod, tc.dns)
			if string(got.Text()) != string(tc.want.Text()) {
				t.Errorf("got\n%swant\n%s", got.Text(), tc.want.Text())
			}
			var reasons []string
			for _, w := range warnings {
				reasons = append(reasons, w.Reason)
			}
			if !slices.Equal(reasons, tc.warn) {
				t.Errorf("warnings %v, want %v", warnings, tc.warn)
			}
		})
	}
}

func TestSearchLimits(t *testing.T) {
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf("d%d.example", i))
	}
	long := func(n int) string { return strings.Repeat("a", n) }
	for _, tc := range []struct {
		name       string
		have, want []string
		warn       bool
	}{
		{"32 fit", many[:32], many[:32], false},
		{"33 do not", many[:33], many[:32], true},
		{"a domain over 253 is left out", []string{"a", long(254), "b", long(253)}, []string{"a", "b", long(253)}, true},
		{"2048 characters fit", []string{long(253), long(253), long(253), long(253), long(253), long(253), long(253), long(253), long(16)},
			[]string{long(253), long(253), long(253), long(253), long(253), long(253), long(253), long(253), long(16)}, false},
		{"2049 do not", []string{long(253), long(253), long(253), long(253), long(253), long(253), long(253), long(253), long(17)},
			[]string{long(253), long(253), long(253), long(253), long(253), long(253), long(253), long(253)}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := pod("web", func(s *corev1.PodSpec) { s.DNSPolicy = corev1.DNSDefault })
			keep := slices.Clone(tc.have)
			got, warnings := Resolve(p, DNS{Node: ResolvConf{Searches: tc.have}})
			if !slices.Equal(got.Searches, tc.want) {
				t.Errorf("got %d domains %v, want %d", len(got.Searches), got.Searches, len(tc.want))
			}
			if (len(warnings) > 0) != tc.warn {
				t.Errorf("warnings %v", warnings)
			}
			if !slices.Equal(keep, tc.have) {
				t.Error("the node's list was changed in place")
			}
		})
	}
}

func TestParseResolvConf(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       ResolvConf
	}{
		{"empty", "", ResolvConf{}},
		{"comments and noise", "# nameserver 1\n;nameserver 2\nsortlist 3\ndomain old.example\n\tnameserver  192.0.2.1  # home\n", ResolvConf{Servers: []string{"192.0.2.1"}}},
		{"servers accumulate", "nameserver 192.0.2.1\nnameserver\nnameserver fe80::1%eth0", ResolvConf{Servers: []string{"192.0.2.1", "fe80::1%eth0"}}},
		{"last search wins", "search a b\nsearch c. . d.", ResolvConf{Searches: []string{"c", "d"}}},
		{"an empty search clears", "search a b\nsearch", ResolvConf{}},
		{"last option of a name wins", "options ndots:2 rotate\noptions ndots:3 edns0", ResolvConf{Options: []string{"ndots:3", "rotate", "edns0"}}},
		{"carriage returns", "nameserver 192.0.2.1\r\nsearch a\r\n", ResolvConf{Servers: []string{"192.0.2.1"}, Searches: []string{"a"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseResolvConf([]byte(tc.text))
			if err != nil || string(got.Text()) != string(tc.want.Text()) {
				t.Errorf("got %+v, %v; want %+v", got, err, tc.want)
			}
		})
	}
	if _, err := ParseResolvConf(make([]byte, 10<<20+1)); err == nil {
		t.Error("a file over 10 MiB was read")
	}
}

func TestOnlyLoopback(t *testing.T) {
	for list, want := range map[string]bool{"127.0.0.53": true, "127.0.0.53 ::1": true, "127.0.0.53 192.0.2.1": false, "": false, "nonsense": false} {
		if got := (ResolvConf{Servers: strings.Fields(list)}).OnlyLoopback(); got != want {
			t.Errorf("%q: got %t", list, got)
		}
	}
}

// What is written is read back as the same, whatever the node's file held; and
// no line of it can be anything but one of the three that were meant.
func FuzzParseResolvConf(f *testing.F) {
	f.Add("nameserver 192.0.2.1\nsearch a. b\noptions ndots:5 rotate\n")
	f.Add("search .\noptions a:1 a:2\nnameserver")
	f.Add("nameserver \x00\nsearch \u0085 \v x..\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseResolvConf([]byte(text))
		if err != nil {
			t.Skip()
		}
		again, err := ParseResolvConf(r.Text())
		if err != nil || string(again.Text()) != string(r.Text()) {
			t.Fatalf("%q was read back as %q, %v", r.Text(), again.Text(), err)
		}
		for line := range strings.Lines(string(r.Text())) {
			if k, _, _ := strings.Cut(line, " "); k != "search" && k != "nameserver" && k != "options" {
				t.Fatalf("line %q", line)
			}
		}
		before := string(r.Text())
		got, _ := Resolve(pod("web", nil), DNS{Node: r, ClusterDNS: []string{"192.0.2.10"}, ClusterDomain: "c"})
		if len(got.Servers) > maxServers || len(got.Searches) > maxSearches || len(strings.Join(got.Searches, " ")) > maxSearchChars {
			t.Fatalf("limits are broken by %q", text)
		}
		if before != string(r.Text()) {
			t.Fatal("the node's configuration was changed")
		}
	})
}
