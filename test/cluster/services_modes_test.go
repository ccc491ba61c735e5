package cluster_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeagent/test/bed"
	"nodeagent/test/cluster"
)

// firewall is how the rules of a mode are looked at, and taken away.
type firewall struct {
	mode, flavour string
	lists         []string // with the kernel's handles, where it has some: what is written anew has others
	ours          string   // what is in each line of a list that is the daemon's own
	shows         string   // shows them as people read them
	flushes       []string
}

var byNftables = firewall{
	mode: "nftables", ours: "", shows: "nft list table inet nodeagent-services",
	lists:   []string{"nft -a list table inet nodeagent-services"},
	flushes: []string{"nft delete table inet nodeagent-services", "nft flush ruleset"},
}

// byIptables is mode iptables in a flavour, "nft" or "legacy".
func byIptables(flavour string) firewall {
	out := firewall{
		mode: "iptables", flavour: flavour, ours: "NODEAGENT-", shows: "iptables-" + flavour + "-save",
		flushes: []string{"iptables-" + flavour + " -t nat -F", "iptables-" + flavour + " -F NODEAGENT-CLOSED"},
	}
	for _, table := range []string{"nat", "filter"} {
		if flavour == "nft" {
			out.lists = append(out.lists, "nft -s -a list table ip "+table, "nft -s -a list table ip6 "+table)
		} else {
			out.lists = append(out.lists, "iptables-legacy -t "+table+" -S", "ip6tables-legacy -t "+table+" -S")
		}
	}
	if flavour == "nft" {
		out.flushes = append(out.flushes, "nft flush ruleset")
	}
	return out
}

func (f firewall) name() string { return strings.TrimSuffix(f.mode+"-"+f.flavour, "-") }

// TestServiceModes: the same services in mode iptables. A daemon that comes with
// another mode takes over without a gap, and leaves nothing of the one before.
func TestServiceModes(t *testing.T) {
	n := newControlPlane(t)
	file, err := n.c.Node("node")
	if err != nil {
		t.Fatal(err)
	}
	n.by = byNftables
	n.AgentProcess = bed.Agent(t, n.bed, bed.AgentOptions{Kubelet: n.authentication(), Proxy: cluster.OwnServices(n.by.mode), Args: []string{"--kubeconfig", file}})
	n.registered()
	n.apply(webService)
	n.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
	n.kubectl("wait", ready, "pod/client", "--timeout=60s")
	n.addresses()
	modes := []firewall{byIptables("nft"), byNftables}
	if _, err := exec.LookPath("iptables-legacy"); err == nil {
		modes = []firewall{byIptables("nft"), byIptables("legacy"), byNftables}
	}
	for _, by := range modes {
		t.Run(by.name(), func(t *testing.T) {
			n.in(t).turnTo(by)
			n.by = by
			t.Run("addresses", func(t *testing.T) { n.in(t).addresses() })
			t.Run("succeeded", func(t *testing.T) { n.in(t).succeeded(by) })
			if by.mode == byNftables.mode {
				return // TestServices has the rest
			}
			t.Run("ranges", func(t *testing.T) { n.in(t).serviceRanges() })
			t.Run("explained", func(t *testing.T) { n.in(t).explained() })
			t.Run("rolling", func(t *testing.T) { n.in(t).rolling() })
			t.Run("killed", func(t *testing.T) { n.in(t).killed() })
			t.Run("flushed", func(t *testing.T) { n.in(t).flushed() })
			t.Run("told", func(t *testing.T) { n.in(t).told() })
		})
	}
	t.Run("none", func(t *testing.T) { n.in(t).none() })
}

// do runs a command in the bed.
func (n *node) do(line string) string {
	n.t.Helper()
	out, err := n.bed.Run(n.ctx, strings.Fields(line)...)
	if err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
	return out
}

// plants are rules of kube-proxy, and those of others among them.
var plants = []string{
	"nft add table ip kube-proxy", "nft add table ip others",
	"iptables-nft -t nat -N KUBE-SERVICES", "iptables-nft -t nat -N KUBE-SVC-AAAAAAAAAAAAAAAA",
	"iptables-nft -t nat -I PREROUTING -j KUBE-SERVICES", "iptables-nft -t nat -A KUBE-SERVICES -d 10.96.100.9/32 -j KUBE-SVC-AAAAAAAAAAAAAAAA",
	"iptables-nft -N KUBE-FIREWALL", "iptables-nft -I INPUT -j KUBE-FIREWALL", // kubelet's
	"iptables-nft -N OTHERS", "iptables-nft -A OTHERS -j RETURN", "iptables-nft -A FORWARD -j OTHERS",
}

// plant leaves what an earlier kube-proxy would, and others have.
func (n *node) plant() {
	n.t.Helper()
	if out, err := n.bed.Run(n.ctx, "nft", "list", "table", "ip", "others"); err == nil && strings.Contains(out, "others") {
		return
	}
	for _, line := range plants {
		n.do(line)
	}
}

// turnTo has the daemon killed, and another begin in another mode.
func (n *node) turnTo(by firewall) {
	n.t.Helper()
	n.plant()
	switch by.flavour { // as the chains of kubelet say
	case "nft":
		n.do("iptables-nft -t mangle -N KUBE-KUBELET-CANARY")
	case "legacy":
		_, _ = n.bed.Run(n.ctx, "iptables-nft", "-t", "mangle", "-X", "KUBE-KUBELET-CANARY") // it may be gone with a flush
		n.do("iptables-legacy -t mangle -N KUBE-KUBELET-CANARY")
	}
	n.remode(n.by.mode, by.mode)
	n.healthy()
}

// remode starts the daemon anew with another mode in its file.
func (n *node) remode(from, to string) {
	n.t.Helper()
	text, err := os.ReadFile(n.ConfigFile())
	if err != nil {
		n.t.Fatal(err)
	}
	changed := strings.Replace(string(text), "mode: "+from+"\n", "mode: "+to+"\n", 1)
	if err := os.WriteFile(n.ConfigFile(), []byte(changed), 0o600); err != nil {
		n.t.Fatal(err)
	}
	n.restart()
}

// rules lists the rules of the mode.
func (n *node) rules() string {
	n.t.Helper()
	var out []string
	for _, list := range n.by.lists {
		out = append(out, n.do(list))
	}
	return strings.Join(out, "")
}

// left are the lines of a mode's lists that are the daemon's own.
func (n *node) left(by firewall) []string {
	n.t.Helper()
	var out []string
	for _, list := range by.lists {
		text, err := n.bed.Run(n.ctx, strings.Fields(list)...)
		if err != nil {
			continue // there is no such table
		}
		for line := range strings.Lines(text) {
			if strings.Contains(line, by.ours) {
				out = append(out, line)
			}
		}
	}
	return out
}

// gone waits until nothing is left of modes.
func (n *node) gone(modes ...firewall) {
	n.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		var left []string
		for _, by := range modes {
			left = append(left, n.left(by)...)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("there is still\n%s", strings.Join(left, ""))
		}
	}
}

// succeeded: of an earlier proxy and of other modes nothing is left, and of others
// everything.
func (n *node) succeeded(by firewall) {
	n.t.Helper()
	n.healthy()
	all := []firewall{byNftables, byIptables("nft")}
	if _, err := exec.LookPath("iptables-legacy"); err == nil {
		all = append(all, byIptables("legacy"))
	}
	n.gone(slices.DeleteFunc(all, func(x firewall) bool { return x.name() == by.name() })...)
	if rules := n.do(by.shows); !strings.Contains(rules, "default/web cluster IP") {
		n.t.Errorf("the rules of mode %s are not there:\n%s", by.mode, rules)
	}
	n.others()
}

// others waits until kube-proxy's rules are gone, and looks whether those of others
// are there.
func (n *node) others() {
	n.t.Helper()
	if out, err := n.bed.Run(n.ctx, "nft", "list", "table", "ip", "others"); err != nil {
		n.t.Logf("nobody else has rules here: %v, %s", err, out)
		return
	}
	for deadline := time.Now().Add(time.Minute); ; {
		tables, chains := n.do("nft list tables"), n.do("iptables-nft-save")
		if !strings.Contains(tables, "kube-proxy") && !strings.Contains(chains, "KUBE-SERVICES") && !strings.Contains(chains, "KUBE-SVC-") {
			for _, want := range []string{"table ip others\n", "-A INPUT -j KUBE-FIREWALL\n", "-A FORWARD -j OTHERS\n", "-A OTHERS -j RETURN\n"} {
				if !strings.Contains(tables+chains, want) {
					n.t.Errorf("%q of somebody else is gone:\n%s%s", want, tables, chains)
				}
			}
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("kube-proxy's rules are still there:\n%s%s", tables, chains)
		}
	}
}

// flushed: who takes the rules away does so for a moment.
func (n *node) flushed() {
	n.t.Helper()
	for _, how := range n.by.flushes {
		before := n.left(n.by)
		n.do(how)
		for begun := time.Now(); ; {
			now := n.left(n.by)
			if len(now) == len(before) {
				n.t.Logf("after %q the rules were there again at the latest %s later", how, time.Since(begun))
				break
			}
			if time.Since(begun) > time.Minute {
				n.t.Fatalf("after %q there is\n%s\nwhere there was\n%s", how, strings.Join(now, ""), strings.Join(before, ""))
			}
		}
		n.served(webIP)
	}
}

// none: where another program is to serve services nothing of ours is left.
func (n *node) none() {
	n.t.Helper()
	n.remode(n.by.mode, "none")
	n.gone(byNftables, byIptables("nft"))
	if text, err := n.asked(webIP); err == nil {
		n.t.Errorf("without a proxy a service answers %q", text)
	}
	n.others()
}
