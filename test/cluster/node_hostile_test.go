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
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"nodeagent/internal/test/need"
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
	for deadline := time.Now().Add(time.Minute); ; { // the authorizer learns of it a moment later
		out, err := n.c.Kubectl(n.ctx, "auth", "can-i", verb, "nodes", "--subresource=proxy", "--as="+name)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("%s may not %s nodes/proxy: %q, %v", name, verb, out, err)
		}
	}
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

// brokenStreams begins many commands and breaks off (STREAMS says how many).
func (n *node) brokenStreams() {
	times := 300
	if more, err := strconv.Atoi(os.Getenv("STREAMS")); err == nil {
		times = more
	}
	pair := n.apiServer()
	for range 8 { // what is kept for the next ones is there
		n.breakOff(pair)
	}
	before, goroutines := n.FDs(), n.number("go_goroutines")
	for range times {
		n.breakOff(pair)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		fds, now, commands := n.FDs(), n.number("go_goroutines"), n.commands("7777")
		if fds <= before+5 && now <= goroutines+5 && commands == 0 {
			n.t.Logf("figure: %d commands that broke off: descriptors %d and %d, goroutines %d and %d", times, before, fds, goroutines, now)
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("%d descriptors are open, before %d; %d goroutines, before %d; %d commands still run", fds, before, now, goroutines, commands)
		}
	}
}

// breakOff begins a command and resets the connection.
func (n *node) breakOff(pair *tls.Certificate) {
	n.t.Helper()
	c := n.as(pair)
	if got, err := upgrade(c, http.MethodGet, execPath, "websocket", "v4.channel.k8s.io"); got != http.StatusSwitchingProtocols {
		n.t.Fatalf("exec is answered with %d, %v", got, err)
	}
	_ = c.NetConn().(*net.TCPConn).SetLinger(0)
	_ = c.NetConn().Close()
}

// number is a metric without labels.
func (n *node) number(name string) int {
	n.t.Helper()
	v, err := strconv.Atoi(n.metric(name))
	if err != nil {
		n.t.Fatal(err)
	}
	return v
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
			if strings.HasPrefix(line, "kubelet_http_") {
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

// slowClients opens connections by the thousand that never say what they want, in the
// middle of a handshake or of a header, while somebody honest asks again and again.
func (n *node) slowClients() {
	const times = 10_000
	before := n.rss()
	flood, ended := make(chan error, 1), make(chan struct{})
	defer close(ended)
	go func() { flood <- n.flood(times, ended) }()
	var took []time.Duration
	for done := false; !done || len(took) < 100; {
		begun := time.Now()
		if code, _ := n.get("/healthz"); code != http.StatusOK {
			n.t.Fatalf("meanwhile somebody honest is answered with %d", code)
		}
		took = append(took, time.Since(begun))
		select {
		case err := <-flood:
			if err != nil {
				n.t.Fatal(err)
			}
			flood, done = nil, true
		default:
		}
	}
	if got := n.kubectl("logs", "victim"); got != "first\n" {
		n.t.Errorf("meanwhile a log is %q", got)
	}
	grown := n.rss() - before
	slices.Sort(took)
	half, most := took[len(took)/2], took[len(took)*99/100]
	n.t.Logf("figure: with %d slow connections the daemon has %+d KiB; of %d honest requests half took %.1f ms, 99%% %.1f ms", times, grown>>10, len(took), half.Seconds()*1e3, most.Seconds()*1e3)
	if grown > 64<<20 && !raced {
		n.t.Errorf("the daemon grew by %d MiB", grown>>20)
	}
	if limit := need.Slow(2 * time.Second); most > limit && !raced {
		n.t.Errorf("of %d honest requests 1%% took %s and more, want less than %s", len(took), most, limit)
	}
}

// flood opens connections from another address than that of the API server, one in ten
// to the middle of its header, and keeps them until it is told to end.
func (n *node) flood(times int, end <-chan struct{}) error {
	var all []net.Conn
	from := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	defer func() {
		go func() { // ends with the test
			<-end
			for _, c := range all {
				_ = c.Close()
			}
		}()
	}()
	return n.bed.Do(func() error {
		for i := range times {
			c, err := from.DialContext(n.ctx, "tcp", net.JoinHostPort(bed.NodeIP, "10250"))
			if err != nil {
				return err
			}
			all = append(all, c)
			if i%10 != 0 {
				_, _ = c.Write([]byte{0x16, 0x03}) // the beginning of a greeting
				continue
			}
			secure := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = fmt.Fprint(secure, "GET /healthz HTTP/1.1\r\nHost: node\r\nX-Slow: ") // or it was closed for newer ones
		}
		return nil
	})
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
