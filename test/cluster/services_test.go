package cluster_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nodeagent/test/bed"
	"nodeagent/test/cluster"
	"nodeagent/test/image"
)

const webService = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 30
      containers:
      - name: c
        image: ` + image.Shell + `
        imagePullPolicy: Never
        command: [/podtool, serve, "0.0.0.0:8080", served]
        readinessProbe: {periodSeconds: 1, tcpSocket: {port: 8080}}
        lifecycle: {preStop: {exec: {command: [/bin/sleep, "10"]}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  clusterIP: 10.96.100.1
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec:
  clusterIP: 10.96.100.2
  selector: {app: nobody}
  ports: [{port: 80}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: ` + image.Shell + `, imagePullPolicy: Never, command: [/bin/sleep, "100000"]}]
`

const (
	webIP    = "10.96.100.1:80"
	nobodyIP = "10.96.100.2:80"
	webPort  = bed.NodeIP + ":30080"
	apiIP    = "10.96.0.1:443"
)

// TestServices is a node whose service addresses are its own work: there is no
// kube-proxy.
func TestServices(t *testing.T) {
	n := newControlPlane(t)
	file, err := n.c.Node("node")
	if err != nil {
		t.Fatal(err)
	}
	n.by = byNftables
	n.plant()
	n.AgentProcess = bed.Agent(t, n.bed, bed.AgentOptions{Kubelet: n.authentication(), Proxy: cluster.OwnServices(n.by.mode), Args: []string{"--kubeconfig", file}})
	n.registered()
	n.apply(webService)
	n.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
	n.kubectl("wait", ready, "pod/client", "--timeout=60s")
	t.Run("addresses", func(t *testing.T) { n.in(t).addresses() })
	t.Run("succeeded", func(t *testing.T) { n.in(t).succeeded(n.by) })
	t.Run("ranges", func(t *testing.T) { n.in(t).serviceRanges() })
	t.Run("explained", func(t *testing.T) { n.in(t).explained() })
	t.Run("stuck", func(t *testing.T) { n.in(t).stuck() })
	t.Run("rolling", func(t *testing.T) { n.in(t).rolling() })
	t.Run("killed", func(t *testing.T) { n.in(t).killed() })
	t.Run("flushed", func(t *testing.T) { n.in(t).flushed() })
	t.Run("told", func(t *testing.T) { n.in(t).told() })
}

// TestProxyOnly: a daemon that is nothing but a proxy, with kube-proxy's
// credentials, beside another that has the pods.
func TestProxyOnly(t *testing.T) {
	n := newNode(t)
	n.registered()
	file, err := n.c.Kubeconfig("kube-proxy", cluster.Identity{Name: "system:kube-proxy"})
	if err != nil {
		t.Fatal(err)
	}
	n.apply(webService)
	n.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
	n.kubectl("wait", ready, "pod/client", "--timeout=60s")
	if text, err := n.asked(webIP); err == nil {
		t.Fatalf("without a proxy a service answers %q", text)
	}
	for _, by := range []firewall{byNftables, byIptables("nft")} {
		t.Run(by.name(), func(t *testing.T) {
			n := n.in(t)
			n.by = by
			bed.Agent(t, n.bed, bed.AgentOptions{ // it ends with this test, and the next has to take its place
				Name: "proxy", NodeAgent: "proxyOnly: true\n", Proxy: cluster.OwnServices(by.mode) + fmt.Sprintf("clientConnection: {kubeconfig: %q}\n", file),
				Args: []string{"--hostname-override", "node"},
			})
			n.addresses()
			n.succeeded(by)
		})
	}
}

// asked asks an address from the node, by a connection of its own.
func (n *node) asked(addr string) (string, error) {
	ctx, cancel := context.WithTimeout(n.ctx, 20*time.Second)
	defer cancel()
	c, err := n.bed.Connect(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

// served asks until it is answered, for at most a minute, and says how long it took.
func (n *node) served(addr string) time.Duration {
	n.t.Helper()
	for begun := time.Now(); ; {
		text, err := n.asked(addr)
		if err == nil && strings.Contains(text, "served") {
			return time.Since(begun)
		}
		if time.Since(begun) > time.Minute {
			n.t.Fatalf("%s is answered with %q, %v", addr, text, err)
		}
	}
}

// addresses: cluster IP and node port from the node and from a pod, and an address
// without endpoints, which says so at once.
func (n *node) addresses() {
	for _, addr := range []string{webIP, webPort} {
		n.served(addr)
		if got := n.kubectl("exec", "client", "--", "/podtool", "get", addr); !strings.Contains(got, "served") {
			n.t.Errorf("a pod that asks %s gets %q", addr, got)
		}
	}
	if out, err := n.c.Kubectl(n.ctx, "exec", "deploy/web", "--", "/podtool", "get", webIP); err != nil || !strings.Contains(out, "served") {
		n.t.Errorf("an endpoint that asks its own service gets %q, %v", out, err)
	}
	if _, err := n.asked(nobodyIP); err == nil || !strings.Contains(err.Error(), "refused") {
		n.t.Errorf("a service without endpoints is %v, want refused", err)
	}
}

// serviceRanges: an address that no service has is refused at once, as soon as it is one of a
// range of which the API server draws cluster IPs.
func (n *node) serviceRanges() {
	for _, addr := range []string{"10.96.77.77:80", "10.111.255.254:443"} {
		if text, err := n.asked(addr); err == nil || !strings.Contains(err.Error(), "refused") {
			n.t.Errorf("%s, which nobody has, answers %q, %v, want refused", addr, text, err)
		}
		out, err := n.c.Kubectl(n.ctx, "exec", "client", "--", "/podtool", "get", addr)
		if err == nil || !strings.Contains(out+err.Error(), "refused") {
			n.t.Errorf("%s, which nobody has, answers a pod %q, %v, want refused", addr, out, err)
		}
	}
	n.apply(`
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: more}
spec: {cidrs: [10.120.0.0/16]}
`)
	for deadline := time.Now().Add(time.Minute); ; {
		_, err := n.asked("10.120.0.7:80")
		if err != nil && strings.Contains(err.Error(), "refused") {
			break
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("an address of a range that came later is %v, want refused", err)
		}
	}
	n.served(webIP)
}

// explained: the way to a service is told with what the kernel has of it, and where it
// ends; also with the daemon dead.
func (n *node) explained() {
	x := n.explain("web")
	if x.Blocks != nil || x.Source != "daemon" || len(x.Addresses) != 2 || len(x.Endpoints) != 3 {
		n.t.Errorf("a service that answers is explained by %+v", x)
	}
	for _, a := range x.Addresses {
		if a.Kernel != "present" || len(a.Endpoints) != 3 {
			n.t.Errorf("its address is %+v", a)
		}
	}
	if x := n.explain("nobody"); x.Blocks == nil || x.Blocks.Gate != "endpoints" || len(x.Addresses) != 1 || x.Addresses[0].Kernel != "present" {
		n.t.Errorf("a service without endpoints is explained by %+v", x)
	}
	if x := n.explain("missing"); x.Blocks == nil || x.Blocks.Gate != "service" {
		n.t.Errorf("a service that is not there is explained by %+v", x)
	}
	out, err := n.CLI(n.ctx, "explain", "service", "web")
	if err != nil || !strings.Contains(out, "GATE ") || !strings.Contains(out, webIP+"/TCP") {
		n.t.Errorf("the table is %s, %v", out, err)
	}
	if out, err := n.CLI(n.ctx, "__complete", "explain", "service", "--", ""); err != nil || !strings.Contains(out, "default/web\n") {
		n.t.Errorf("names complete to %q, %v", out, err)
	}
	if err := n.Kill(); err != nil {
		n.t.Fatal(err)
	}
	x = n.explain("web")
	if x.Source != "kernel" || len(x.Addresses) != 2 {
		n.t.Errorf("with the daemon dead it is explained by %+v", x)
	}
	if err := n.AgentProcess.Start(n.ctx); err != nil {
		n.t.Fatal(err)
	}
	n.healthy()
}

// explanation is what is looked at of a ServiceExplanation.
type explanation struct {
	Source    string
	Blocks    *struct{ Gate, Detail string }
	Addresses []serviceAddress
	Endpoints []struct{ Address, State string }
}

type serviceAddress struct {
	Address, Kernel string
	Endpoints       []string
}

func (n *node) explain(name string) (x explanation) {
	n.t.Helper()
	out, err := n.CLI(n.ctx, "explain", "service", name, "-o", "json")
	at := strings.Index(out, "{\n")
	if err != nil || at < 0 {
		n.t.Fatalf("explain service %s: %v: %s", name, err, out)
	}
	if err := json.NewDecoder(strings.NewReader(out[at:])).Decode(&x); err != nil {
		n.t.Fatalf("explain service %s: %v: %s", name, err, out)
	}
	return x
}

// stuck: services go on changing while the runtime hangs, and no pod can.
func (n *node) stuck() {
	if err := n.bed.Stop(); err != nil {
		n.t.Fatal(err)
	}
	defer func() {
		if err := n.bed.Cont(); err != nil {
			n.t.Error(err)
		}
	}()
	n.apply(`
apiVersion: v1
kind: Service
metadata: {name: late}
spec:
  clusterIP: 10.96.100.3
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
`)
	n.t.Logf("while the runtime hangs a new service is answered after %s", n.served("10.96.100.3:80"))
}

// rolling: while all endpoints are replaced no request is lost.
func (n *node) rolling() {
	ctx, cancel := context.WithCancel(n.ctx)
	defer cancel()
	var good atomic.Int64
	failed := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if text, err := n.asked(webIP); err != nil || !strings.Contains(text, "served") {
				select {
				case failed <- fmt.Errorf("after %d requests: %q, %w", good.Load(), text, err):
				default:
				}
				continue
			}
			good.Add(1)
		}
	}()
	before := n.jsonpath("{.items[*].status.podIP}", "pods", "-l", "app=web")
	n.kubectl("rollout", "restart", "deployment/web")
	n.kubectl("rollout", "status", "deployment/web", "--timeout=180s")
	n.replaced()
	cancel()
	<-done
	select {
	case err := <-failed:
		n.t.Errorf("a request was lost while endpoints were replaced: %v", err)
	default:
	}
	if after := n.jsonpath("{.items[*].status.podIP}", "pods", "-l", "app=web"); after == before || good.Load() == 0 {
		n.t.Errorf("endpoints %s became %s, and %d requests were answered", before, after, good.Load())
	}
	n.t.Logf("%d requests, none lost", good.Load())
}

// replaced waits until nothing is left of the pods that were replaced.
func (n *node) replaced() {
	n.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		all := n.jsonpath("{.items[*].metadata.name}", "endpointslices", "-l", "kubernetes.io/service-name in (web,late)")
		ends := n.jsonpath("{.items[*].endpoints[*].addresses[0]}", "endpointslices", "-l", "kubernetes.io/service-name in (web,late)")
		if len(strings.Fields(ends)) == 3*len(strings.Fields(all)) {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("the endpoints of services of three pods are %s in %s", ends, all)
		}
	}
}

// settled waits until the rules are those of the services as they are, and no longer
// change, and returns them.
func (n *node) settled() string {
	n.t.Helper()
	last := ""
	for deadline := time.Now().Add(time.Minute); ; {
		x := n.explain("web")
		stale := slices.ContainsFunc(x.Addresses, func(a serviceAddress) bool { return a.Kernel != "present" || len(a.Endpoints) != 3 })
		now := n.rules()
		if len(x.Endpoints) == 3 && !stale && now == last {
			return now
		}
		if last = now; time.Now().After(deadline) {
			n.t.Fatalf("the rules do not settle: the service is %+v; they are\n%s", x, now)
		}
	}
}

// killed: a daemon that is killed and started again cuts no connection and writes
// no rule.
func (n *node) killed() {
	var dials atomic.Int64
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // it is the connection that counts
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials.Add(1)
			return n.bed.Connect(ctx, network, addr)
		},
	}}
	defer client.CloseIdleConnections()
	ask := func() {
		n.t.Helper()
		resp, err := client.Get("https://" + apiIP + "/livez")
		if err != nil {
			n.t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	ask()
	n.replaced()
	before := n.settled()
	if err := n.Kill(); err != nil {
		n.t.Fatal(err)
	}
	ask() // nobody is there, and the rules are
	if err := n.AgentProcess.Start(n.ctx); err != nil {
		n.t.Fatal(err)
	}
	n.healthy()
	ask()
	if dials.Load() != 1 {
		n.t.Errorf("the connection was cut: there were %d", dials.Load())
	}
	if after := n.rules(); after != before {
		n.t.Errorf("a restart wrote rules; before:\n%s\nafter:\n%s", before, after)
	}
	n.served(webIP)
}

// healthy waits until the proxy says that its rules are in force.
func (n *node) healthy() {
	n.t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: n.bed.Connect, DisableKeepAlives: true}, Timeout: 10 * time.Second}
	for deadline := time.Now().Add(time.Minute); ; {
		resp, err := client.Get("http://127.0.0.1:10256/healthz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
			err = errors.New(resp.Status)
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("the proxy is not healthy: %v", err)
		}
	}
}

// told: metrics by kube-proxy's names, and an event where a service does not get
// what it asks for.
func (n *node) told() {
	client := http.Client{Transport: &http.Transport{DialContext: n.bed.Connect, DisableKeepAlives: true}, Timeout: 20 * time.Second}
	resp, err := client.Get("http://127.0.0.1:10249/metrics")
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(text), "kubeproxy_sync_proxy_rules_duration_seconds_count ") || !strings.Contains(string(text), "kubeproxy_network_programming_duration_seconds_count ") {
		n.t.Errorf("the metrics are %s, %v", text, err)
	}
	n.kubectl("patch", "service", "web", "-p", `{"spec":{"externalIPs":["10.96.0.1"]}}`)
	for deadline := time.Now().Add(time.Minute); ; {
		if said := n.kubectl("get", "events", "--field-selector", "involvedObject.kind=Service,involvedObject.name=web,reason=ServiceAddressConflict", "-o", "name"); said != "" {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatal("there is no event of an externalIP that is not served")
		}
	}
}
