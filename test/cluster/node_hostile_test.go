package cluster_test

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"nodeagent/test/bed"
	"nodeagent/test/cluster"
	"nodeagent/test/image"
)

// hostileClients: what RELIABILITY's G10 wants of the node API, from who knows the
// node's port. Streams need the right to create on every transport; slow connections
// by the thousand take a bounded memory and keep nobody out; streams that break off
// leave nothing; paths that do not exist make no metrics.
func (n *node) hostileClients() {
	n.apply(`
apiVersion: v1
kind: Pod
metadata: {name: victim}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: ` + image.Shell + `, imagePullPolicy: Never, command: [/bin/sh, -c, "echo first; exec sleep 100000"]}]
`)
	n.kubectl("wait", ready, "pod/victim", "--timeout=60s")
	defer n.kubectl("delete", "pod", "victim", "--timeout=60s")
	n.streamRights()
	n.brokenStreams()
	n.manyPaths()
	n.slowClients()
}

// as is a TLS connection to the node API by somebody of the cluster, or by nobody.
func (n *node) as(pair *tls.Certificate) *tls.Conn {
	n.t.Helper()
	conn, err := n.bed.Connect(n.ctx, "tcp", net.JoinHostPort(bed.NodeIP, "10250"))
	if err != nil {
		n.t.Fatal(err)
	}
	// The node's certificate is its own; that of the client is what counts here.
	cfg := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}
	if pair != nil {
		cfg.Certificates = []tls.Certificate{*pair}
	}
	c := tls.Client(conn, cfg)
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// apiServer is who the API server is at nodes.
func (n *node) apiServer() *tls.Certificate {
	n.t.Helper()
	pki := filepath.Dir(n.c.CA())
	pair, err := tls.LoadX509KeyPair(filepath.Join(pki, "kubelet-client.crt"), filepath.Join(pki, "kubelet-client.key"))
	if err != nil {
		n.t.Fatal(err)
	}
	return &pair
}

// person is somebody who may do something of nodes/proxy.
func (n *node) person(name, verb string) *tls.Certificate {
	n.t.Helper()
	n.kubectl("create", "clusterrole", name, "--verb="+verb, "--resource=nodes/proxy")
	n.kubectl("create", "clusterrolebinding", name, "--clusterrole="+name, "--user="+name)
	file, err := n.c.Kubeconfig(name, cluster.Identity{Name: name})
	if err != nil {
		n.t.Fatal(err)
	}
	pair, err := kubeconfigPair(file)
	if err != nil {
		n.t.Fatal(err)
	}
	return &pair
}

const execPath = "/exec/default/victim/c?command=sleep&command=7777&output=1"

// upgrade asks for a stream and returns what is answered.
func upgrade(c net.Conn, method, path, protocol, version string) (int, error) {
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: node\r\nConnection: Upgrade\r\nUpgrade: %s\r\n", method, path, protocol)
	if protocol == "websocket" {
		fmt.Fprintf(c, "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Protocol: %s\r\n", base64.StdEncoding.EncodeToString(make([]byte, 16)), version)
	} else {
		fmt.Fprintf(c, "X-Stream-Protocol-Version: %s\r\nContent-Length: 0\r\n", version)
	}
	fmt.Fprint(c, "\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, nil
}

// transports are the ways to a stream.
var transports = []struct{ method, protocol, version string }{
	{http.MethodPost, "SPDY/3.1", "v4.channel.k8s.io"},
	{http.MethodGet, "websocket", "v4.channel.k8s.io"},
}

func (n *node) streamRights() {
	reader, writer := n.person("reader", "get"), n.person("writer", "create")
	for _, w := range transports {
		for who, c := range map[string]struct {
			pair *tls.Certificate
			want int
		}{
			"nobody": {nil, http.StatusUnauthorized}, "who may get": {reader, http.StatusForbidden}, "who may create": {writer, http.StatusSwitchingProtocols},
		} {
			conn := n.as(c.pair)
			if got, err := upgrade(conn, w.method, execPath, w.protocol, w.version); got != c.want {
				n.t.Errorf("exec over %s %s by %s is answered with %d, %v; want %d", w.protocol, w.version, who, got, err, c.want)
			}
			conn.Close()
		}
	}
}

// brokenStreams begins many commands and breaks off.
func (n *node) brokenStreams() {
	const times = 300
	pair := n.apiServer()
	before, goroutines := n.FDs(), n.metric("go_goroutines")
	for range times {
		c := n.as(pair)
		if got, err := upgrade(c, http.MethodGet, execPath, "websocket", "v4.channel.k8s.io"); got != http.StatusSwitchingProtocols {
			n.t.Fatalf("exec is answered with %d, %v", got, err)
		}
		_ = c.NetConn().(*net.TCPConn).SetLinger(0)
		_ = c.NetConn().Close()
	}
	for deadline := time.Now().Add(time.Minute); ; {
		fds, commands := n.FDs(), n.commands("7777")
		if fds <= before+5 && commands == 0 {
			n.t.Logf("%d streams that broke off: %d descriptors before and %d after, goroutines %s and %s", times, before, fds, goroutines, n.metric("go_goroutines"))
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("%d descriptors are open, before %d; %d commands still run", fds, before, commands)
		}
	}
}

// commands counts the processes of the bed that have a word on their command line.
func (n *node) commands(word string) (count int) {
	for pid := range n.bed.Processes() {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(text), word) {
			count++
		}
	}
	return count
}

// get asks the node API as the API server does.
func (n *node) get(path string) (int, string) {
	n.t.Helper()
	c := n.as(n.apiServer())
	defer c.Close()
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n", path)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		n.t.Fatalf("GET %s: %v", path, err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	return resp.StatusCode, string(text)
}

// metric is the value of a metric without labels, "" where there is none.
func (n *node) metric(name string) string {
	_, text := n.get("/metrics")
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// manyPaths asks for what is not there. A series a path would be without a bound.
func (n *node) manyPaths() {
	series := func() (all []string) {
		_, text := n.get("/metrics")
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "#") {
				all = append(all, line)
			}
		}
		return all
	}
	n.get("/nothing/first") // the first of a kind may make a series
	before := len(series())
	for i := range 1000 {
		if code, _ := n.get(fmt.Sprintf("/nothing/%d", i)); code == http.StatusOK {
			n.t.Fatalf("/nothing/%d is answered", i)
		}
	}
	if after := len(series()); after > before {
		n.t.Errorf("1000 paths that do not exist made %d series of %d", after, before)
	}
}

// slowClients opens thousands of connections that never say what they want.
func (n *node) slowClients() {
	const times = 3000
	before := n.rss()
	var all []net.Conn
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	err := n.bed.Do(func() error {
		for range times {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(bed.NodeIP, "10250"), 10*time.Second)
			if err != nil {
				return err
			}
			all = append(all, c)
			_, _ = c.Write([]byte{0x16, 0x03}) // the beginning of a greeting
		}
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
	begun := time.Now()
	if got := n.kubectl("logs", "victim"); got != "first\n" {
		n.t.Errorf("meanwhile a log is %q", got)
	}
	grown := n.rss() - before
	n.t.Logf("with %d slow connections the daemon has %+d KiB, and kubectl logs took %.2f s", times, grown>>10, time.Since(begun).Seconds())
	if grown > 64<<20 {
		n.t.Errorf("the daemon grew by %d MiB", grown>>20)
	}
}

// rss is the daemon's memory in bytes.
func (n *node) rss() int64 {
	n.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", n.Pid))
	if err != nil {
		n.t.Fatal(err)
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		n.t.Fatal(err)
	}
	return resident * int64(os.Getpagesize())
}

// kubeconfigPair is the certificate in a kubeconfig of the bed.
func kubeconfigPair(file string) (tls.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return tls.Certificate{}, err
	}
	var cfg struct {
		Users []struct {
			User struct {
				Cert []byte `json:"client-certificate-data"`
				Key  []byte `json:"client-key-data"`
			}
		}
	}
	if err := yaml.Unmarshal(text, &cfg); err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cfg.Users[0].User.Cert, cfg.Users[0].User.Key)
}
