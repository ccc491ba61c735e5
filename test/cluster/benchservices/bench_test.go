package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"nodeagent/test/measure"
)

// said is what a kube-proxy 1.36 says of itself, shortened.
const said = `# HELP kubeproxy_sync_proxy_rules_duration_seconds [BETA] SyncProxyRules latency in seconds
# TYPE kubeproxy_sync_proxy_rules_duration_seconds histogram
kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.001"} 0
kubeproxy_sync_proxy_rules_duration_seconds_sum{ip_family="IPv4"} 1.5
kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv4"} 3
kubeproxy_sync_proxy_rules_duration_seconds_sum{ip_family="IPv6"} 0.25
kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv6"} 2
kubeproxy_sync_proxy_rules_duration_seconds_count_other 100
plain 7
`

// TestSum: a figure is that of all families, and no other's.
func TestSum(t *testing.T) {
	for name, want := range map[string]float64{
		"kubeproxy_sync_proxy_rules_duration_seconds_sum": 1.75, "kubeproxy_sync_proxy_rules_duration_seconds_count": 5, "plain": 7,
	} {
		if got, err := sum(strings.NewReader(said), name); err != nil || got != want {
			t.Errorf("%s is %v, %v, want %v", name, got, err, want)
		}
	}
	if got, err := sum(strings.NewReader(said), "kubeproxy_sync"); err == nil {
		t.Errorf("a figure that is not there is %v", got)
	}
}

// TestAddresses: no two services and no two endpoints have the same.
func TestAddresses(t *testing.T) {
	b, seen := &bench{}, map[netip.Addr]bool{}
	mine := netip.MustParsePrefix(endpoints)
	add := func(a netip.Addr, inside bool) {
		t.Helper()
		if seen[a] || mine.Contains(a) != inside {
			t.Fatalf("%s is used twice or out of its range", a)
		}
		seen[a] = true
	}
	for i := range 10_100 {
		add(serviceAddress(i).Addr(), false)
		for _, a := range usual(i) {
			add(a, true)
		}
	}
	for range 20_000 {
		add(b.spare(), true)
	}
}

// TestRows: ours is held against the limit, not against kube-proxy, and what is over
// it is told.
func TestRows(t *testing.T) {
	b := &bench{options: options{services: 10_000}, goals: limits["nftables"], sides: []*side{{values: map[int]*values{}}, {values: map[int]*values{}}}}
	for _, n := range b.sizes() {
		for at := range valueCount {
			b.sides[0].of(n).add(at, 1e-6)
			b.sides[1].of(n).add(at, 1e-3)
		}
	}
	var out bytes.Buffer
	if measure.Table(&out, "KUBE-PROXY", b.rows()) || !strings.Contains(out.String(), "0.001 ×") {
		t.Errorf("all are within their limits:\n%s", out.String())
	}
	b.beside = beside{ours: []float64{0.5, 0.52}, bare: []float64{0.41, 0.4}}
	if out.Reset(); measure.Table(&out, "KUBE-PROXY", b.rows()) || !strings.Contains(out.String(), "1.26 ×") {
		t.Errorf("the legacy flavour is within its limit:\n%s", out.String())
	}
	b.beside.ours[0] = 0.55
	if out.Reset(); !measure.Table(&out, "KUBE-PROXY", b.rows()) {
		t.Errorf("the legacy flavour is over its limit:\n%s", out.String())
	}
	b.beside.ours = nil
	b.sides[0].of(10_000)[movedCPU] = []float64{0.0011}
	out.Reset()
	if !measure.Table(&out, "KUBE-PROXY", b.rows()) || strings.Count(out.String(), "OVER") != 1 {
		t.Errorf("one is over its limit:\n%s", out.String())
	}
	out.Reset()
	b.printGrowth(&out)
	if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != len(kinds)+1 || !strings.Contains(lines[0], "10000") {
		t.Errorf("the growth is\n%s", out.String())
	}
}
