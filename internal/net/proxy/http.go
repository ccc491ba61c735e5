package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"nodeagent/internal/net"
)

// health is kube-proxy's answer.
type health struct {
	CurrentTime  time.Time `json:"currentTime"`
	LastUpdated  time.Time `json:"lastUpdated"`
	NodeEligible *bool     `json:"nodeEligible,omitempty"`
	Healthy      bool      `json:"healthy"`
}

// The two questions.
const (
	healthz = iota // may traffic be sent to this node?
	livez          // does the proxy work?
)

// Health answers /healthz and /livez, which cloud load balancers and people ask.
// It says nothing of what is behind the node.
func (p *Proxy) Health() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", p.state.answer(healthz))
	mux.HandleFunc("GET /livez", p.state.answer(livez))
	return mux
}

func (s *state) answer(which int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		ok, now := s.healthy(), time.Now()
		s.mu.Lock()
		h := health{CurrentTime: now, LastUpdated: s.updated}
		if which == healthz {
			able := s.able
			h.NodeEligible = &able
			// Before the first rules nobody is served who is sent here.
			ok = ok && able && !s.updated.IsZero()
		}
		h.Healthy = ok
		code := http.StatusOK
		if !ok {
			code = http.StatusServiceUnavailable
		} else if !s.updated.IsZero() {
			h.LastUpdated = now // as clients of old releases expect
		}
		s.figures.answers[which][code]++
		s.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(h)
	}
}

// Metrics answers /metrics, /proxyMode, /configz and /healthz.
func (p *Proxy) Metrics() http.Handler {
	s, mux := p.state, http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		var text bytes.Buffer // a client that is slow holds up nobody
		s.mu.Lock()
		s.figures.write(&text, s.mode, s.updated)
		s.figures.writeAsked(&text, s.host)
		s.mu.Unlock()
		if write := p.cfg.Process; write != nil {
			if err := write(&text); err != nil {
				p.cfg.Logger.Warn("leave out what the process uses of the machine", "err", err)
			}
		}
		_, _ = text.WriteTo(w)
	})
	mux.HandleFunc("GET /proxyMode", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		fmt.Fprint(w, s.mode)
	})
	mux.HandleFunc("GET /configz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"kubeproxy.config.k8s.io": s.settings})
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	return mux
}

// Modes that have figures of their own.
const (
	iptables = "iptables"
	ipvs     = "ipvs"
)

// write writes what dashboards know of kube-proxy in a mode, by its names.
func (f *figures) write(w io.Writer, mode string, updated time.Time) {
	const prefix = "kubeproxy_"
	one := func(kind, name, help, labels string, v any) {
		if help != "" {
			fmt.Fprintf(w, "# HELP %s%s %s\n# TYPE %s%s %s\n", prefix, name, help, prefix, name, kind)
		}
		fmt.Fprintf(w, "%s%s%s %v\n", prefix, name, labels, v)
	}
	f.sync.write(w, prefix+"sync_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds")
	f.whole.write(w, prefix+"sync_full_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds for full resyncs")
	f.part.write(w, prefix+"sync_partial_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds for partial resyncs")
	f.programming.write(w, prefix+"network_programming_duration_seconds", "In Cluster Network Programming Latency in seconds")
	one("gauge", "sync_proxy_rules_last_timestamp_seconds", "The last time proxy rules were successfully synced", "", seconds(updated))
	one("gauge", "sync_proxy_rules_last_queued_timestamp_seconds", "The last time a sync of proxy rules was queued", "", seconds(f.queued))
	one("gauge", "sync_proxy_rules_service_changes_pending", "Pending proxy rules Service changes", "", f.pending[services])
	one("counter", "sync_proxy_rules_service_changes_total", "Cumulative proxy rules Service changes", "", f.changes[services])
	one("gauge", "sync_proxy_rules_endpoint_changes_pending", "Pending proxy rules Endpoint changes", "", f.pending[endpointSlices])
	one("counter", "sync_proxy_rules_endpoint_changes_total", "Cumulative proxy rules Endpoint changes", "", f.changes[endpointSlices])
	switch mode {
	case iptables:
		one("counter", "sync_proxy_rules_iptables_restore_failures_total", "Cumulative proxy iptables restore failures", "", f.failures)
		one("counter", "sync_proxy_rules_iptables_partial_restore_failures_total", "Cumulative proxy iptables partial restore failures", "", f.partFailures)
		f.writeRules(one)
	case ipvs:
		one("counter", "sync_proxy_rules_iptables_restore_failures_total", "Cumulative proxy iptables restore failures", "", f.failures)
	default:
		one("counter", "sync_proxy_rules_nftables_sync_failures_total", "Cumulative proxy nftables sync failures", "", f.failures)
		one("counter", "sync_proxy_rules_nftables_cleanup_failures_total", "Cumulative proxy nftables cleanup failures", "", f.counts.CleanupFailures)
	}
	one("gauge", "sync_proxy_rules_no_local_endpoints_total", "Number of services with a Local traffic policy and no endpoints", `{traffic_policy="internal"}`, f.noLocal[0])
	one("gauge", "sync_proxy_rules_no_local_endpoints_total", "", `{traffic_policy="external"}`, f.noLocal[1])
	f.forgetting.write(w, prefix+"conntrack_reconciler_sync_duration_seconds", "ReconcileConntrackFlowsLatency latency in seconds")
	one("counter", "conntrack_reconciler_deleted_entries_total", "Cumulative conntrack flows deleted by conntrack reconciler", "", f.forgotten)
	for i, name := range []string{"proxy_healthz_total", "proxy_livez_total"} {
		help := "Cumulative proxy " + []string{"healthz", "livez"}[i] + " HTTP status"
		for _, code := range slices.Sorted(maps.Keys(f.answers[i])) {
			one("counter", name, help, fmt.Sprintf(`{code="%d"}`, code), f.answers[i][code])
			help = ""
		}
	}
	fmt.Fprintf(w, "# HELP nodeagent_services_foreign_changes_total Changes of service rules by others, which were mended\n"+
		"# TYPE nodeagent_services_foreign_changes_total counter\nnodeagent_services_foreign_changes_total %d\n"+
		"# HELP nodeagent_services_entries Ports of services that there are rules for, of each family\n"+
		"# TYPE nodeagent_services_entries gauge\nnodeagent_services_entries %d\n", f.foreign, f.entries)
}

// writeRules writes how many rules of iptables there are, by table and family.
func (f *figures) writeRules(one func(kind, name, help, labels string, v any)) {
	total, last := "Total number of iptables rules owned by kube-proxy", "Number of iptables rules written by kube-proxy in last sync"
	labels := func(r net.RuleCount) string { return fmt.Sprintf(`{ip_family="IPv%d",table=%q}`, r.Family, r.Table) }
	for _, r := range f.counts.Rules {
		one("gauge", "sync_proxy_rules_iptables_total", total, labels(r), r.Total)
		total = ""
	}
	for _, r := range f.counts.Rules {
		one("gauge", "sync_proxy_rules_iptables_last", last, labels(r), r.Last)
		last = ""
	}
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}
