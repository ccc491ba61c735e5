package proxy

import (
	"bytes"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nodeagent/internal/net"
)

// What kube-proxy 1.36.3 serves in every mode, and in each besides.
var (
	known = []string{
		"kubeproxy_network_programming_duration_seconds", "kubeproxy_proxy_healthz_total", "kubeproxy_proxy_livez_total",
		"kubeproxy_sync_proxy_rules_duration_seconds", "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
		"kubeproxy_sync_proxy_rules_endpoint_changes_total", "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
		"kubeproxy_sync_proxy_rules_last_timestamp_seconds", "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
		"kubeproxy_sync_proxy_rules_service_changes_pending", "kubeproxy_sync_proxy_rules_service_changes_total",
		"kubeproxy_conntrack_reconciler_deleted_entries_total", "kubeproxy_conntrack_reconciler_sync_duration_seconds",
	}
	knownOf = map[string][]string{
		"nftables": {
			"kubeproxy_sync_full_proxy_rules_duration_seconds", "kubeproxy_sync_partial_proxy_rules_duration_seconds",
			"kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total", "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
		},
		"iptables": {
			"kubeproxy_iptables_ct_state_invalid_dropped_packets_total", "kubeproxy_iptables_localhost_nodeports_accepted_packets_total",
			"kubeproxy_sync_full_proxy_rules_duration_seconds", "kubeproxy_sync_partial_proxy_rules_duration_seconds",
			"kubeproxy_sync_proxy_rules_iptables_last", "kubeproxy_sync_proxy_rules_iptables_total",
			"kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total", "kubeproxy_sync_proxy_rules_iptables_restore_failures_total",
		},
		"ipvs": {"kubeproxy_sync_proxy_rules_iptables_restore_failures_total"},
	}
	// uncounted are those that have nothing to count here, or that nobody counts.
	uncounted = []string{
		"kubeproxy_iptables_ct_state_invalid_dropped_packets_total", "kubeproxy_iptables_localhost_nodeports_accepted_packets_total",
	}
	// besides are ours in mode ipvs, where kube-proxy knows no partial writes.
	besides = []string{"kubeproxy_sync_full_proxy_rules_duration_seconds", "kubeproxy_sync_partial_proxy_rules_duration_seconds"}
)

// TestMetricNames: in each mode there are kube-proxy's names of that mode.
func TestMetricNames(t *testing.T) {
	for mode, more := range knownOf {
		want := slices.Concat(known, more)
		if mode == ipvs {
			want = append(want, besides...)
		}
		want = slices.DeleteFunc(want, func(name string) bool { return slices.Contains(uncounted, name) })
		slices.Sort(want)
		s := newState(mode, nil)
		s.figures.answers = [2]map[int]int{{200: 1}, {200: 1}}
		s.counted(net.Counts{CleanupFailures: 3, Rules: []net.RuleCount{{Table: "nat", Family: 4, Total: 12, Last: 5}, {Table: "filter", Family: 6, Total: 7}}})
		s.failed(errors.New("changes were refused"), false)
		s.failed(errors.New("all was refused"), true)
		var text bytes.Buffer
		s.figures.write(&text, mode, time.Time{})
		var got []string
		for line := range strings.Lines(text.String()) {
			if name, ok := strings.CutPrefix(line, "# TYPE "); ok && strings.HasPrefix(name, "kubeproxy_") {
				got = append(got, strings.Fields(name)[0])
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("in mode %s there are\n%s\nwant\n%s", mode, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		counts := map[string][]string{
			"nftables": {"nftables_sync_failures_total 2", "nftables_cleanup_failures_total 3"},
			"iptables": {
				"iptables_restore_failures_total 2", "iptables_partial_restore_failures_total 1",
				`iptables_total{ip_family="IPv4",table="nat"} 12`, `iptables_total{ip_family="IPv6",table="filter"} 7`,
				`iptables_last{ip_family="IPv4",table="nat"} 5`, `iptables_last{ip_family="IPv6",table="filter"} 0`,
			},
			"ipvs": {"iptables_restore_failures_total 2"},
		}
		for _, line := range counts[mode] {
			if !strings.Contains(text.String(), "\nkubeproxy_sync_proxy_rules_"+line+"\n") {
				t.Errorf("in mode %s there is no %q", mode, line)
			}
		}
	}
}

// TestRequestsCounted: what the API server was asked is told by client-go's name, with
// what came of it.
func TestRequestsCounted(t *testing.T) {
	play(t, func(s *scene) {
		s.put(webs(3, 1)...)
		s.begin()
		metrics := func() string {
			_, text := get(s.proxy.Metrics(), "/metrics")
			return text
		}
		if text := metrics(); !strings.Contains(text, "\nrest_client_requests_total{code=\"200\",host=\"api\",method=\"GET\"} 3\n") {
			t.Errorf("after three lists there is\n%s", text)
		}
		s.server(func() {
			s.fault = func(w http.ResponseWriter, _ *http.Request) bool {
				refuse(w, http.StatusInternalServerError, metav1.StatusReasonInternalError)
				return true
			}
		})
		s.cut()
		s.after(time.Minute)
		if text := metrics(); !strings.Contains(text, "\nrest_client_requests_total{code=\"500\",host=\"api\",method=\"GET\"} ") {
			t.Errorf("after errors there is\n%s", text)
		}
	})
}
