package proxy

import (
	"context"
	"net/http"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"nodeagent/internal/net"
	"nodeagent/internal/net/hosttest"
	rules "nodeagent/internal/net/iptables"
	servers "nodeagent/internal/net/ipvs"
	"nodeagent/internal/net/nettest"
	"nodeagent/internal/net/nftables"
	"nodeagent/internal/test/need"
)

// healer is a mode whose rules somebody damages.
type healer struct {
	mode  string
	new   func() (Backend, error)
	limit time.Duration // from before the damage until all is as it was
	// list prints what there is, a thing a line; a line is ours if it has one of the words
	// of ours.
	list    []string
	ours    []string
	plant   []string // what is not ours
	damages []string
	pull    []string // takes away what was planted
}

// slow is a limit of which the machine's share is a second: what is waited for by the
// clock takes as long in a guest as here.
func slow(limit time.Duration) time.Duration {
	return limit - time.Second + need.Raced(need.Slow(time.Second))
}

var byNftables = healer{
	mode:  "nftables",
	new:   func() (Backend, error) { return nftables.New(nftables.Config{Pods: hosttest.Pods}) },
	limit: time.Second,
	list:  []string{"nft list table inet nodeagent-services", "nft list tables", "nft list table inet foreign"},
	plant: []string{"nft add table inet foreign { set s { type ipv4_addr; elements = { 1.2.3.4 } }; chain c { type filter hook prerouting priority -100; ip saddr 1.2.3.4 drop; }; }"},
	pull:  []string{"nft add table inet foreign; delete table inet foreign"},
	damages: []string{
		"nft delete table inet nodeagent-services",
		"nft flush table inet nodeagent-services",
		"nft delete chain inet nodeagent-services forward",
		"nft flush chain inet nodeagent-services services; delete map inet nodeagent-services services4",
		"nft flush map inet nodeagent-services endpoints4",
		"nft delete element inet nodeagent-services services4 { 10.96.0.1 . tcp . 80 }",
		"nft delete element inet nodeagent-services endpoints4 { 10.96.0.1 . tcp . 80 . 0x80000000 }; add element inet nodeagent-services endpoints4 { 10.96.0.1 . tcp . 80 . 0x80000000 : 10.0.1.77 . 8080 }",
		"nft add element inet nodeagent-services cluster-ips4 { 10.96.77.77 }",
		"nft insert rule inet nodeagent-services services drop",
		"nft flush ruleset",
	},
}

func byIptables(flavour rules.Flavour) healer {
	f := "iptables-" + string(flavour) + " -w" // the proxy holds legacy's lock while it heals
	out := healer{
		mode:  "iptables",
		new:   func() (Backend, error) { return rules.New(rules.Config{Flavour: flavour, Pods: hosttest.Pods}) },
		limit: 3 * time.Second,
		ours:  []string{"NODEAGENT-"},
		list:  []string{f + " -t nat -S", f + " -t filter -S", f + " -t mangle -S", "ip6" + f[2:] + " -t nat -S", "ip6" + f[2:] + " -t filter -S"},
		plant: []string{
			f + " -t nat -N FOREIGN", f + " -t nat -A FOREIGN -d 1.2.3.4/32 -j RETURN", f + " -t nat -I PREROUTING -j FOREIGN",
			f + " -t filter -N FOREIGN", f + " -t filter -A FOREIGN -s 1.2.3.4/32 -j DROP", f + " -t filter -A FORWARD -j FOREIGN",
			f + " -t mangle -A PREROUTING -m conntrack --ctstate NEW -s 1.2.3.4/32 -j DROP", // and so the kernel goes on to track
		},
		pull: []string{f + " -t nat -F", f + " -t nat -X", f + " -t filter -F", f + " -t filter -X", f + " -t mangle -F"},
		damages: []string{
			f + " -t nat -F",
			f + " -t filter -F",
			f + " -t nat -D PREROUTING -m comment --comment nodeagent:_service_addresses -j NODEAGENT-SERVICES",
			f + " -t nat -F NODEAGENT-SERVICES",
			f + " -t nat -D @SVC 2",
			f + " -t nat -R @SVC 3 -p tcp -j DNAT --to-destination 10.0.1.77:8080", // of the same length
			f + " -t nat -I @SVC -j RETURN",
			f + " -t filter -F NODEAGENT-CLOSED",
			f + " -t filter -I NODEAGENT-UNKNOWN -j ACCEPT",
			"ip6" + f[2:] + " -t nat -F",
		},
	}
	if flavour == rules.NFT {
		out.damages = append(out.damages, "nft delete table ip nat", "nft flush ruleset")
	}
	return out
}

var byIPVS = healer{
	mode: "ipvs",
	new: func() (Backend, error) {
		return servers.New(servers.Config{
			Pods: hosttest.Pods, Addrs: hosttest.NodeAddr,
			Flavour: func(context.Context) (string, error) { return string(rules.NFT), nil },
		})
	},
	limit: 3 * time.Second,
	ours:  []string{"NODEAGENT-", "kube-ipvs0", " 10.96.0.", " [fd96::", " 1.1.1.", " [2001:db8:", " 2.2.2.", ":3000", " -f "},
	list: []string{
		"ipvsadm -Sn", "ipset save", "ip -brief -family inet addr show dev kube-ipvs0", "ip -brief -family inet6 addr show dev kube-ipvs0",
		"iptables -t nat -S", "iptables -t filter -S", "iptables -t mangle -S", "ip6tables -t nat -S", "ip6tables -t filter -S", "ip6tables -t mangle -S",
	},
	plant: []string{
		"ipvsadm -A -t 9.9.9.9:80 -s wlc", "ipvsadm -a -t 9.9.9.9:80 -r 10.0.1.9:1 -m", "ipset create OTHERS hash:ip", "ipset add OTHERS 1.2.3.4",
		"iptables -t nat -N FOREIGN", "iptables -t nat -A FOREIGN -d 1.2.3.4/32 -j RETURN", "iptables -t nat -I POSTROUTING -j FOREIGN",
	},
	pull: []string{"ipvsadm -C", "iptables -t nat -F", "iptables -t nat -X", "ipset destroy"},
	damages: []string{
		"ipvsadm -D -t 10.96.0.1:80",
		"ipvsadm -D -u [fd96::1]:80",
		"ipvsadm -d -t 10.96.0.1:80 -r 10.0.1.9:8080",
		"ipvsadm -e -t 10.96.0.1:80 -r 10.0.1.9:8080 -m -w 7",
		"ipvsadm -A -t 10.96.0.1:81 -s rr",
		"ip addr del 10.96.0.1/32 dev kube-ipvs0",
		"ip link del kube-ipvs0",
		"ipset flush NODEAGENT-SERVED",
		"ipset del NODEAGENT-SERVED 10.96.0.1,tcp:80",
		"ipset -exist restore <<< exchange", // see damage
		"iptables -F NODEAGENT-IPVS-CLOSED",
		"ip6tables -t mangle -D INPUT 1",
		"ipvsadm -C",
		"nft flush ruleset",
	},
}

// wide are the ends of damages that are to others, too.
var wide = []string{" -F", "ruleset", "delete table ip nat", " -C"}

// TestHealsInTime: whoever takes rules away, edits them or adds to them, all is as it was
// a second later by nftables, and three by iptables; nothing of others is touched, and
// until then packets end at an endpoint of their service, or nowhere.
func TestHealsInTime(t *testing.T) {
	need.Have(t, need.Root)
	for name, h := range map[string]healer{"nftables": byNftables, "iptables-nft": byIptables(rules.NFT), "iptables-legacy": byIptables(rules.Legacy)} {
		t.Run(name, h.test)
	}
}

// TestHealsInTimeByIPVS is the same where the kernel has IPVS: in three seconds.
func TestHealsInTimeByIPVS(t *testing.T) {
	need.Have(t, need.Root, need.IPVS)
	byIPVS.test(t)
}

func (h healer) test(t *testing.T) {
	hosts := hosttest.Wire(t)
	h.run(t, h.plant...)
	t.Cleanup(func() { h.run(t, h.pull...) })
	mended := h.begin(t, hosts)
	whole, foreign := h.look(t)
	calls := h.call(t, hosts)
	var worst time.Duration
	for _, damage := range h.damages {
		drained(mended)
		begun := time.Now()
		h.run(t, damage)
		_, left := h.look(t)
		took := h.wait(t, mended, begun, whole, damage)
		t.Logf("%-7v after %q all is as it was", took.Round(time.Millisecond), damage)
		if worst = max(worst, took); took > slow(h.limit) {
			t.Errorf("after %q it took %v, and may take %v", damage, took, slow(h.limit))
		}
		if _, now := h.look(t); now != left {
			t.Errorf("%q left of others\n%s\nand now there is\n%s", damage, left, now)
		}
		if left != foreign && !slices.ContainsFunc(wide, func(w string) bool { return strings.HasSuffix(damage, w) }) {
			t.Errorf("%q: of others there was\n%s\nand now there is\n%s", damage, foreign, left)
		}
		foreign = left
		calls.served(damage)
	}
	calls.end()
	t.Logf("the longest took %v; %s", worst.Round(time.Millisecond), calls)
}

// begin has a proxy serve two services in the mode, and returns when something was
// mended, each time that it is.
func (h healer) begin(t *testing.T, hosts map[string]*hosttest.Host) <-chan time.Time {
	t.Helper()
	for _, name := range []string{"here1", "here2", "here3", "there1"} {
		hosts[name].Serve(t, 8080)
	}
	all := []metav1.Object{aNode()}
	for i, ends := range [][]string{{"here1", "there1"}, {"here2"}} {
		s := hosttest.ServiceOf(i+1, func(s *corev1.Service) { s.UID = "uid" }, nettest.Ranges("192.168.0.0/24"))
		all = append(all, s)
		for _, x := range hosttest.Ends(s.Name, hosts, ends...) {
			all = append(all, x)
		}
	}
	b := h.backend(t)
	t.Cleanup(func() { h.remove(t, b) })
	k := &noted{Backend: b, inForce: make(chan struct{}), mended: make(chan time.Time, 64)}
	serve(t, h.mode, k, nil, all...)
	select {
	case <-k.inForce:
	case <-hosttest.Ctx(t).Done():
		t.Fatal("the rules never were in force")
	}
	return k.mended
}

func (h healer) backend(t *testing.T) Backend {
	t.Helper()
	b, err := h.new()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// remove takes all away that is there of the mode.
func (healer) remove(t *testing.T, b Backend) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), need.Slow(20*time.Second))
	defer cancel()
	if err := b.(interface{ Remove(context.Context) error }).Remove(ctx); err != nil {
		t.Error(err)
	}
	b.(closer).Close()
}

// noted is a Backend that notes when a look at everything mended something.
type noted struct {
	Backend
	inForce chan struct{}
	mended  chan time.Time
}

// TakeOver is what is done last of the turn that has our rules in force.
func (n *noted) TakeOver(context.Context) ([]string, error) {
	close(n.inForce)
	return nil, nil
}

func (n *noted) Sync(ctx context.Context, t *net.Table) (net.Report, error) {
	r, err := n.Backend.Sync(ctx, t)
	if err == nil && r != (net.Report{}) {
		select {
		case n.mended <- time.Now():
		default:
		}
	}
	return r, err
}

func drained(c <-chan time.Time) {
	for {
		select {
		case <-c:
		default:
			return
		}
	}
}

// serve runs a proxy of the objects over a Backend until the test ends.
func serve(t *testing.T, mode string, b Backend, told Teller, all ...metav1.Object) *Proxy {
	t.Helper()
	api := newAPIServer()
	server := &http.Server{Handler: api}
	t.Cleanup(func() { close(api.closed); _ = server.Close() })
	go func() { _ = server.Serve(api) }()
	api.put(all...)
	transport := &http.Transport{DialContext: api.dial}
	t.Cleanup(transport.CloseIdleConnections)
	p, err := New(Config{
		NodeName: "here", Rest: &rest.Config{Host: "http://api"}, HTTP: &http.Client{Transport: transport}, Mode: mode,
		Backend: func(Facts) (Backend, error) { return b, nil }, Teller: told,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return p
}

// wait waits until all is as it was, and returns how long after begun that was.
func (h healer) wait(t *testing.T, mended <-chan time.Time, begun time.Time, whole, damage string) time.Duration {
	t.Helper()
	late := time.NewTimer(need.Slow(time.Minute))
	defer late.Stop()
	for {
		select {
		case at := <-mended:
			if now, _ := h.look(t); now == whole {
				return at.Sub(begun)
			}
		case <-late.C:
			now, _ := h.look(t)
			t.Fatalf("%q is not mended: there is\n%s\nwhere there was\n%s", damage, now, whole)
		}
	}
}

// run runs commands. One of nft is a script; a word that begins with @ stands for the
// chain of the first service that is called so, and _ for a space.
func (h healer) run(t *testing.T, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if strings.HasPrefix(line, "ipset -exist restore") {
			h.feed(t, "del NODEAGENT-SERVED 10.96.0.1,tcp:80\nadd NODEAGENT-SERVED 10.96.0.77,tcp:80\n", "ipset", "restore")
			continue
		}
		words := strings.Fields(line)
		if script, ok := strings.CutPrefix(line, "nft "); ok {
			words = []string{"nft", script}
		}
		for i, w := range words {
			if kind, ok := strings.CutPrefix(w, "@"); ok {
				words[i] = h.chain(t, kind)
			}
			if strings.HasPrefix(w, "nodeagent:") {
				words[i] = strings.ReplaceAll(w, "_", " ")
			}
		}
		h.feed(t, "", words...)
	}
}

func (healer) feed(t *testing.T, input string, words ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), need.Slow(20*time.Second))
	defer cancel()
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(words, " "), err, out)
	}
	return string(out)
}

// chain is the chain to which the first service's cluster IP leads.
func (h healer) chain(t *testing.T, kind string) string {
	t.Helper()
	for line := range strings.Lines(h.feed(t, "", strings.Fields(h.list[0])...)) {
		if words := strings.Fields(line); strings.Contains(line, "-A NODEAGENT-IP -d 10.96.0.1/32 -p tcp") && strings.Contains(words[len(words)-1], kind+"-") {
			return words[len(words)-1]
		}
	}
	t.Fatalf("no chain is called %s", kind)
	return ""
}

// look prints what is ours and what is not, without what has no order, or changes by
// itself. What is not there yet, or not any more, prints nothing.
func (h healer) look(t *testing.T) (ours, others string) {
	t.Helper()
	var mine, theirs []string
	for i, command := range h.list {
		ctx, cancel := context.WithTimeout(context.Background(), need.Slow(20*time.Second))
		words := strings.Fields(command)
		text, _ := exec.CommandContext(ctx, words[0], words[1:]...).Output()
		cancel()
		if h.ours == nil { // a table by itself
			if all := pieces(string(text)); i == 0 {
				mine = all
			} else {
				theirs = slices.DeleteFunc(append(theirs, all...), func(s string) bool { return strings.HasPrefix(s, "nodeagent") || s == "table" || s == "inet" })
			}
			continue
		}
		for line := range strings.Lines(string(text)) {
			line = strings.Join(strings.Fields(line), " ")
			if words := strings.Fields(line); len(words) > 3 && words[0] == "create" {
				line = strings.Join(words[:3], " ") // sizes grow, and what is hashed by is drawn
			}
			switch {
			case slices.ContainsFunc(h.ours, func(w string) bool { return strings.Contains(" "+line, w) }):
				mine = append(mine, words[0]+": "+strings.Join(sortedEnd(line), " "))
			case !strings.HasPrefix(line, "-P"): // tables that nobody uses come and go
				theirs = append(theirs, words[0]+": "+line)
			}
		}
	}
	slices.Sort(mine)
	slices.Sort(theirs)
	return strings.Join(mine, "\n"), strings.Join(theirs, "\n")
}

// sortedEnd are a line's words; the addresses of a device have no order.
func sortedEnd(line string) []string {
	words := strings.Fields(line)
	if strings.HasPrefix(line, "kube-ipvs0") {
		slices.Sort(words)
	}
	return words
}

// pieces are the words of a listing of nft, in which elements have no order, without
// counters.
func pieces(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\n,{}", r) })
}

// calls are connections that are made all the time, one after the other at each
// address.
type calls struct {
	t     *testing.T
	hosts map[string]*hosttest.Host
	done  chan struct{}
	all   sync.WaitGroup

	mu             sync.Mutex
	right, nowhere int
}

// addresses are those that are called, and who may answer.
var addresses = map[string][]string{
	"10.96.0.1:80": {"here1", "there1"}, "[fd96::1]:80": {"here1", "there1"}, "192.168.0.1:30001": {"here1", "there1"}, "2.2.2.1:80": {"here1", "there1"},
	"10.96.0.2:80": {"here2"}, "1.1.1.2:80": {"here2"}, "[fd00::1]:30002": {"here2"},
}

// pauseOf is between two calls of an address: others want to work, too.
const pauseOf = 2 * time.Millisecond

func (h healer) call(t *testing.T, hosts map[string]*hosttest.Host) *calls {
	c := &calls{t: t, hosts: hosts, done: make(chan struct{})}
	for to, who := range addresses {
		for _, network := range []string{"tcp", "udp"} {
			c.all.Go(func() {
				tick := time.NewTicker(need.Slow(pauseOf))
				defer tick.Stop()
				for {
					select {
					case <-c.done:
						return
					case <-tick.C:
						c.one(network, to, who, need.Slow(hosttest.Never))
					}
				}
			})
		}
	}
	t.Cleanup(c.end)
	return c
}

// one calls once. It ends at an endpoint of the service, or nowhere.
func (c *calls) one(network, to string, who []string, wait time.Duration) bool {
	got := c.hosts["outside"].Call(network, netip.MustParseAddrPort(to), wait)
	name, _, _ := strings.Cut(got, " ")
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case slices.Contains(who, name):
		c.right++
		return true
	case c.hosts[name] != nil:
		c.t.Errorf("%s %s: %q answers, and only %q may", network, to, got, who)
	}
	c.nowhere++
	return false
}

// served asks each address once more: now all are served.
func (c *calls) served(after string) {
	c.t.Helper()
	for to, who := range addresses {
		for _, network := range []string{"tcp", "udp"} {
			first := c.one(network, to, who, need.Slow(hosttest.Never))
			if !first && !c.one(network, to, who, need.Slow(hosttest.Soon)) {
				c.t.Errorf("after %q all is as it was, and %s %s is not served", after, network, to)
			}
		}
	}
}

func (c *calls) end() {
	select {
	case <-c.done:
	default:
		close(c.done)
	}
	c.all.Wait()
}

func (c *calls) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return "calls served at the right endpoint: " + strconv.Itoa(c.right) + ", nowhere: " + strconv.Itoa(c.nowhere)
}
