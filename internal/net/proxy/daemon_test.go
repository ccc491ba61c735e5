package proxy

import (
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/net/hosttest"
	rules "nodeagent/internal/net/iptables"
	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
)

// daemon is the program itself, as nothing but a service proxy, in the namespace of the
// test: a node with hosts around it.
type daemon struct {
	*testing.T
	api   *apiServer
	hosts map[string]*hosttest.Host
	bin   string
	dir   string
	cmd   *exec.Cmd
}

// keptByKubeadm is a KubeProxyConfiguration as the ConfigMap kube-system/kube-proxy has
// it, but for what belongs to the whole machine.
const keptByKubeadm = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: %q
  qps: 0
clusterCIDR: 10.0.0.0/16,fd10::/48
configSyncPeriod: 0s
conntrack:
  maxPerCore: 0
  min: 0
  tcpBeLiberal: false
  tcpCloseWaitTimeout: 0s
  tcpEstablishedTimeout: 0s
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
metricsBindAddress: ""
mode: %s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
---
apiVersion: nodeagent/v1alpha1
kind: NodeAgentConfiguration
proxyOnly: true
stateDir: %q
runDir: %q
`

// newDaemon serves what a daemon needs of an API server, and starts none yet.
func newDaemon(t *testing.T) *daemon {
	t.Helper()
	d := &daemon{T: t, api: newAPIServer(), hosts: hosttest.Wire(t), dir: t.TempDir()}
	bin, err := bed.Built(t.Context(), "nodeagent", bed.Variant{})
	if err != nil {
		t.Fatal(err)
	}
	d.bin = filepath.Join(bin, "nodeagent")
	server := httptest.NewTLSServer(d.api)
	t.Cleanup(func() { close(d.api.closed); server.CloseClientConnections(); server.Close() })
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	d.write("kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, server.URL, base64.StdEncoding.EncodeToString(ca)))
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(d.dir, "log"))
			t.Logf("the daemon said\n%s", log)
		}
	})
	return d
}

func (d *daemon) write(name, text string) {
	d.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o600); err != nil {
		d.Fatal(err)
	}
}

// start starts it in a mode, and waits until it says that its rules are in force.
func (d *daemon) start(mode string) {
	d.Helper()
	d.kill()
	d.write("config", fmt.Sprintf(keptByKubeadm, filepath.Join(d.dir, "kubeconfig"), mode, filepath.Join(d.dir, "state"), filepath.Join(d.dir, "run")))
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(d.bin, "run", "--config", filepath.Join(d.dir, "config"), "--hostname-override", "here")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		d.Fatal(err)
	}
	d.cmd = cmd
	d.until("the rules are in force", func() string {
		resp, err := http.Get("http://127.0.0.1:10256/healthz")
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return resp.Status
		}
		return ""
	})
}

// kill is kill -9.
func (d *daemon) kill() {
	if d.cmd != nil {
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
		d.cmd = nil
	}
	http.DefaultClient.CloseIdleConnections()
}

// until waits until nothing is wrong any more.
func (d *daemon) until(what string, wrong func() string) {
	d.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(need.Slow(time.Minute))
	defer late.Stop()
	for {
		why := wrong()
		if why == "" {
			return
		}
		select {
		case <-tick.C:
		case <-late.C:
			d.Fatalf("until %s: %s", what, why)
		}
	}
}

// put makes a service and its endpoints.
func (d *daemon) put(i int, ends ...string) {
	s := hosttest.ServiceOf(i)
	d.api.put(s)
	for _, x := range hosttest.Ends(s.Name, d.hosts, ends...) {
		d.api.put(x)
	}
}

// answers asks all addresses of a service by TCP and UDP from everywhere, and wants one
// of who to answer; or nobody, if there is none.
func (d *daemon) answers(i int, who ...string) {
	d.Helper()
	for _, format := range []string{"10.96.0.%d:80", "[fd96::%d]:80", "1.1.1.%d:80", "[2001:db8:2::%d]:80", "192.168.0.1:%d", "[fd00::1]:%d"} {
		n := i
		if strings.Contains(format, "]:%d") || strings.HasSuffix(format, "1:%d") {
			n += 30000
		}
		to := netip.MustParseAddrPort(fmt.Sprintf(format, n))
		for _, from := range []*hosttest.Host{d.hosts["outside"], d.hosts["here1"], nil} {
			for _, network := range []string{"tcp", "udp"} {
				name := ""
				wait := need.Slow(hosttest.Soon)
				if len(who) == 0 {
					wait = need.Slow(hosttest.Never)
				}
				got := from.Call(network, to, wait)
				if name, _, _ = strings.Cut(got, " "); d.hosts[name] == nil {
					name = ""
				}
				if !slices.Contains(who, name) && (name != "" || len(who) > 0) {
					d.Errorf("%s %s: %q, want one of %q", network, to, got, who)
				}
			}
		}
	}
}

// story is what a daemon goes through: it serves; it starts again and changes nothing;
// while it is dead, killed, objects change, and when it starts it serves these; in another
// mode it leaves nothing of this one, and comes back.
func story(t *testing.T, h, other healer, handles string) {
	need.Have(t, need.Root)
	d := newDaemon(t)
	for _, name := range []string{"here1", "here2", "there1"} {
		d.hosts[name].Serve(t, 8080)
	}
	d.api.put(aNode(func(n *corev1.Node) {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: "fd00::1"})
	}))
	d.put(1, "here1", "there1")
	d.put(2, "here2")
	h.run(t, h.plant...)
	t.Cleanup(func() { h.run(t, h.pull...) })
	t.Cleanup(func() { d.kill(); h.remove(t, h.backend(t)); other.remove(t, other.backend(t)) })
	_, foreign := h.look(t)
	d.start(h.mode)
	d.answers(1, "here1", "there1")
	d.answers(2, "here2")

	whole, _ := h.look(t)
	list := func() string { return h.feed(t, "", "sh", "-c", handles) }
	was := list()
	open, err := d.hosts["outside"].Dial("tcp", netip.MustParseAddrPort("10.96.0.2:80"), hosttest.Soon)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	before := served(t, h)
	d.start(h.mode)
	if now, _ := h.look(t); now != whole {
		t.Errorf("a start left\n%s\nwhere there was\n%s", now, whole)
	}
	if now := list(); now != was {
		t.Errorf("a start wrote anew: there is\n%s\nand was\n%s", now, was)
	}
	for s, n := range before {
		if now := served(t, h)[s]; now < n {
			t.Errorf("%s had %d connections before a start, and has %d: it is another one", s, n, now)
		}
	}
	b := make([]byte, 100)
	_ = open.SetDeadline(time.Now().Add(need.Slow(hosttest.Soon)))
	if n, err := open.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "here2") {
		t.Errorf("a connection from before a start hears %q, %v", b[:n], err)
	}

	d.kill()
	d.put(1, "here2")
	d.api.remove(hosttest.ServiceOf(2))
	d.put(3, "there1")
	d.start(h.mode)
	d.answers(1, "here2")
	d.answers(2)
	d.answers(3, "there1")

	for round := range 2 {
		d.start(other.mode)
		gone(d, h)
		d.answers(1, "here2")
		d.answers(2)
		d.start(h.mode)
		gone(d, other)
		d.answers(1, "here2")
		d.answers(3, "there1")
		now, _ := h.look(t)
		if round == 0 {
			whole = now // without the server that drained when its mode went
		}
		if now != whole {
			t.Errorf("another mode and back left\n%s\nwhere there was\n%s", now, whole)
		}
	}
	if _, now := h.look(t); now != foreign {
		t.Errorf("of others there was\n%s\nand is\n%s", foreign, now)
	}
}

// gone waits until nothing of a mode is left.
func gone(d *daemon, h healer) {
	d.Helper()
	d.until("all of mode "+h.mode+" is gone", func() string { left, _ := h.look(d.T); return left })
}

// served is how many connections virtual servers have had: one that is made anew has had
// none.
func served(t *testing.T, h healer) map[string]int {
	t.Helper()
	out := map[string]int{}
	if h.mode != "ipvs" {
		return out
	}
	for line := range strings.Lines(h.feed(t, "", "ipvsadm", "-Ln", "--stats", "--exact")) {
		if words := strings.Fields(line); len(words) > 2 && (words[0] == "TCP" || words[0] == "UDP") {
			n, err := strconv.Atoi(words[2])
			if err != nil {
				t.Fatal(err)
			}
			out[words[0]+words[1]] = n
		}
	}
	return out
}

// TestDaemon: the program itself goes from start to start and from mode to mode.
func TestDaemon(t *testing.T) {
	story(t, byIptables(rules.NFT), byNftables, "nft -s -a list table ip nat; nft -s -a list table ip6 nat; nft -s -a list table ip filter")
}

// TestDaemonByIPVS is the same with the mode ipvs, where the kernel has it.
func TestDaemonByIPVS(t *testing.T) {
	need.Have(t, need.Root, need.IPVS)
	story(t, byIPVS, byNftables, "nft -s -a list table ip mangle; nft -s -a list table ip6 mangle; nft -s -a list table ip filter; nft -s -a list table ip nat")
}
