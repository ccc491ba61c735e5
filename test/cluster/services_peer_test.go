package cluster_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeagent/test/bed"
	"nodeagent/test/cluster"
)

// foreign are rules of others among those of a proxy, and one of kubelet's.
var foreign = []string{
	"nft add table ip others",
	"iptables-nft -N KUBE-FIREWALL", "iptables-nft -I INPUT -j KUBE-FIREWALL",
	"iptables-nft -N OTHERS", "iptables-nft -A OTHERS -j RETURN", "iptables-nft -A FORWARD -j OTHERS",
}

// TestAfterKubeProxy: a daemon takes the place of a real kube-proxy that was killed, in
// its mode and in the other; and kube-proxy that of a daemon whose mode became none.
func TestAfterKubeProxy(t *testing.T) {
	n := newControlPlane(t)
	file, err := n.c.Node("node")
	if err != nil {
		t.Fatal(err)
	}
	n.AgentProcess = bed.Agent(t, n.bed, bed.AgentOptions{Kubelet: n.authentication(), Proxy: cluster.OwnServices("none"), Args: []string{"--kubeconfig", file}})
	n.registered()
	n.apply(webService)
	n.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
	n.kubectl("wait", ready, "pod/client", "--timeout=60s")
	for _, line := range foreign {
		n.do(line)
	}
	n.by = firewall{mode: "none"}
	for _, theirs := range []string{"nftables", "iptables"} {
		for _, ours := range []firewall{byNftables, byIptables("nft")} {
			t.Run(theirs+" to "+ours.name(), func(t *testing.T) { n.in(t).comesAfter(theirs, ours) })
		}
	}
}

// comesAfter has kube-proxy program services, then the daemon, and goes back to none.
func (n *node) comesAfter(theirs string, ours firewall) {
	if text, err := n.asked(webIP); err == nil {
		n.t.Fatalf("before anybody serves it a service answers %q", text)
	}
	p, err := n.c.KubeProxy(n.ctx, "node", theirs)
	if err != nil {
		n.t.Fatal(err)
	}
	n.addresses()
	named := n.metricNames()
	if err := p.Kill(); err != nil {
		n.t.Fatal(err)
	}
	left := n.kubeProxys()
	if !strings.Contains(left, "default/web") {
		n.t.Fatalf("kube-proxy left no rules: %s", left)
	}
	n.remode("none", ours.mode)
	n.by = ours
	n.healthy()
	n.succeeded(ours)
	n.addresses()
	if theirs == ours.mode {
		n.namesAll(named)
	}
	for deadline := time.Now().Add(time.Minute); ; bed.Pause(n.ctx, time.Second) {
		if left = n.kubeProxys(); left == "" {
			break
		}
		if time.Now().After(deadline) {
			n.t.Errorf("of kube-proxy there is still\n%s", left)
			break
		}
	}
	n.remode(ours.mode, "none")
	n.gone(byNftables, byIptables("nft"))
	n.others()
}

// metricNames are the names of kube-proxy's figures.
func (n *node) metricNames() []string {
	n.t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: n.bed.Connect, DisableKeepAlives: true}, Timeout: 20 * time.Second}
	resp, err := client.Get("http://127.0.0.1:10249/metrics")
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "# TYPE kubeproxy_"); ok {
			out = append(out, "kubeproxy_"+strings.Fields(name)[0])
		}
	}
	return out
}

// uncounted are packets that kube-proxy counts by nfacct, and we do not.
var uncounted = []string{"kubeproxy_iptables_ct_state_invalid_dropped_packets_total", "kubeproxy_iptables_localhost_nodeports_accepted_packets_total"}

// namesAll wants the daemon to have each of the names.
func (n *node) namesAll(theirs []string) {
	n.t.Helper()
	ours := n.metricNames()
	if len(theirs) < 10 {
		n.t.Errorf("kube-proxy has %q", theirs)
	}
	for _, name := range theirs {
		if !slices.Contains(ours, name) && !slices.Contains(uncounted, name) {
			n.t.Errorf("kube-proxy has the figure %s, and the daemon has %q", name, ours)
		}
	}
}

// kubeProxys are the lines of all rules that are kube-proxy's.
func (n *node) kubeProxys() string {
	n.t.Helper()
	var out []string
	for _, table := range []string{"ip kube-proxy", "ip6 kube-proxy"} {
		if strings.Contains(n.do("nft list tables"), "table "+table+"\n") {
			out = append(out, n.do("nft list table "+table))
		}
	}
	for _, list := range []string{"iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"} {
		for line := range strings.Lines(n.do(list)) {
			if strings.Contains(line, "KUBE-") && !strings.Contains(line, "KUBE-FIREWALL") && !strings.Contains(line, "KUBE-KUBELET-CANARY") {
				out = append(out, list+": "+line)
			}
		}
	}
	return strings.Join(out, "")
}
