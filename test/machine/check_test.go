package machine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"nodeagent/test/machine/guest"
)

// checkNode is a guest with everything that the daemon needs, as an operator
// would have installed it; the daemon itself does not run.
type checkNode struct {
	g   *guest.Guest
	ctx context.Context
}

const checkConfig = `apiVersion: nodeagent/v1alpha1
kind: NodeAgentConfiguration
podNetwork:
  cidrs: [10.244.0.0/24]
`

const checkContainerd = `[Unit]
After=network.target
[Service]
Type=notify
ExecStart=/usr/local/bin/containerd
Delegate=yes
KillMode=process
LimitNOFILE=infinity
TasksMax=infinity
[Install]
WantedBy=multi-user.target
`

const checkInstall = `
install -m 755 /opt/nodeagent/tools/containerd /opt/nodeagent/tools/containerd-shim-runc-v2 /opt/nodeagent/tools/ctr /usr/local/bin/
install -m 755 /opt/nodeagent/tools/runc /usr/local/sbin/
install -m 755 /opt/nodeagent/bin/nodeagent-shim /opt/nodeagent/bin/containerd-shim-nodeagent-v1 /usr/local/bin/
cd /opt/nodeagent/tree/systemd
install -m 644 nodeagent.service /etc/systemd/system/
install -D -m 644 tmpfiles.d/nodeagent.conf /etc/tmpfiles.d/nodeagent.conf
install -D -m 644 sysctl.d/90-nodeagent.conf /etc/sysctl.d/90-nodeagent.conf
install -D -m 644 modules-load.d/nodeagent.conf /etc/modules-load.d/nodeagent.conf
/lib/systemd/systemd-modules-load
systemd-tmpfiles --create /etc/tmpfiles.d/nodeagent.conf
/lib/systemd/systemd-sysctl
cd /etc/systemd/system # by hand: each enable would load all units anew
ln -s ../containerd.service ../nodeagent.service multi-user.target.wants/
systemctl daemon-reload
systemctl start containerd
`

// newCheckNode brings the verb into a guest; install adds all the rest.
func newCheckNode(t *testing.T, o guest.Options) *checkNode {
	t.Helper()
	g := guest.Start(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	n := &checkNode{g, ctx}
	if err := g.Programs(ctx); err != nil {
		t.Fatal(err)
	}
	n.sh(t, "install -m 755 /opt/nodeagent/bin/nodeagent /usr/local/bin/")
	n.write(t, "/etc/nodeagent/config.yaml", checkConfig)
	return n
}

func (n *checkNode) install(t *testing.T) {
	t.Helper()
	n.write(t, "/etc/systemd/system/containerd.service", checkContainerd)
	n.sh(t, checkInstall)
}

func (n *checkNode) sh(t *testing.T, script string) string {
	t.Helper()
	began := time.Now()
	out, err := n.g.Shell(n.ctx, script)
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	t.Logf("%.1f s: %.60q", time.Since(began).Seconds(), script)
	return out
}

func (n *checkNode) write(t *testing.T, path, text string) {
	t.Helper()
	if err := n.g.Write(n.ctx, path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// checked is what the verb found, by ID.
type checked map[string]string

// check runs the verb, whose exit code must fit what it found.
func (n *checkNode) check(t *testing.T, args ...string) checked {
	t.Helper()
	var out bytes.Buffer
	argv := append([]string{"sh", "-c", `exec nodeagent check --timeout 30s --config /etc/nodeagent/config.yaml -o json "$@" 2>/dev/null`, "check"}, args...)
	began := time.Now()
	code, err := n.g.Exec(n.ctx, guest.Command{Argv: argv, Output: &out})
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		Findings []struct{ ID, Severity, Seen string }
		Unseen   []struct{ What, Why string }
		Errors   int
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	if want := map[bool]int{true: 3}[r.Errors > 0]; code != want {
		t.Errorf("check ended with %d, want %d", code, want)
	}
	found := checked{}
	for _, f := range r.Findings {
		found[f.ID] = f.Seen
	}
	if _, none := found["NA-RUNTIME-001"]; len(r.Unseen) > 0 && !none {
		t.Errorf("root does not see %v", r.Unseen)
	}
	t.Logf("%.1f s: %v", time.Since(began).Seconds(), found)
	return found
}

func (c checked) ids() []string {
	var all []string
	for id := range c {
		all = append(all, id)
	}
	slices.Sort(all)
	return all
}

func wantIDs(t *testing.T, got checked, want ...string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got.ids(), want) {
		t.Errorf("found are %v, want %v", got.ids(), want)
	}
}

// guestIDs are the findings of every guest: it has no clock server, no network,
// and the tunables of its Debian.
var guestIDs = []string{"NA-NET-010", "NA-NODE-002", "NA-SYSCTL-001"}

// bareIDs are those of a Debian on which nothing was installed.
var bareIDs = slices.Concat(guestIDs, []string{"NA-LIMIT-001", "NA-NET-012", "NA-RUNTIME-001", "NA-UNIT-001"})

// breakage is one way to break a host, in shell, and how it is found.
type breakage struct {
	name, by, mend string
	ids            []string
	args           []string
}

// breakages are in an order in which the later ones need nothing of the earlier.
var breakages = []breakage{
	{
		"many small things",
		`fallocate -l 16M /swap && chmod 600 /swap && mkswap -q /swap && swapon /swap
echo nameserver 127.0.0.53 >/etc/resolv.conf
systemctl start lxcfs; systemctl kill -s KILL lxcfs; systemctl stop lxcfs || true
rmmod br_netfilter veth; echo install veth /bin/false >/etc/modprobe.d/x.conf`,
		`swapoff /swap; umount -l /var/lib/lxcfs || true
echo nameserver 192.0.2.53 >/etc/resolv.conf
rm /etc/modprobe.d/x.conf; modprobe br_netfilter`,
		[]string{"NA-SWAP-001", "NA-NET-008", "NA-LXCFS-001", "NA-NET-004", "NA-NET-001"}, nil,
	},
	{"iptables of both kinds", "for k in nft legacy; do iptables-$k -A OUTPUT -d 192.0.2.99 -j ACCEPT; done", "for k in nft legacy; do iptables-$k -F OUTPUT; done", []string{"NA-NET-005"}, nil},
	{
		// cgroupfs under systemd is told as well.
		"not delegated",
		`mkdir /sys/fs/cgroup/crowd
sh -c 'echo $$ >/sys/fs/cgroup/crowd/cgroup.procs; exec /bin/sleep 1000' >/dev/null 2>&1 &
until grep -q . /sys/fs/cgroup/crowd/cgroup.procs; do :; done
(cat /etc/nodeagent/config.yaml; printf -- '---\napiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncgroupDriver: cgroupfs\ncgroupRoot: /crowd\n') >/root/crowd.yaml
chmod 600 /root/crowd.yaml`,
		"echo 1 >/sys/fs/cgroup/crowd/cgroup.kill; until rmdir /sys/fs/cgroup/crowd 2>/dev/null; do :; done",
		[]string{"NA-CGROUP-002", "NA-CGROUP-007"},
		[]string{"--config", "/root/crowd.yaml"},
	},
	{"kubelet", "mkdir -p /opt/k; cp /bin/sleep /opt/k/kubelet; systemd-run -q --unit=k /opt/k/kubelet 1000", "systemctl stop k", []string{"NA-AGENT-001"}, nil},
	{"port", "systemd-run -q --unit=p /bin/busybox nc -l -p 10248; until ss -ltn 2>/dev/null | grep -q :10248; do :; done", "systemctl stop p", []string{"NA-PORT-001"}, nil},
	{
		"dangerous unit",
		`cd /etc/systemd/system
mkdir nodeagent.service.d
printf '[Service]\nRuntimeDirectory=nodeagent\nKillMode=mixed\nPrivateTmp=yes\n' >nodeagent.service.d/x.conf
rm /etc/tmpfiles.d/nodeagent.conf multi-user.target.wants/containerd.service
cp containerd.service kubelet.service; ln -s ../kubelet.service multi-user.target.wants/
systemctl daemon-reload`,
		`cd /etc/systemd/system
rm -r nodeagent.service.d kubelet.service multi-user.target.wants/kubelet.service
ln -s ../containerd.service multi-user.target.wants/
cp /opt/nodeagent/tree/systemd/tmpfiles.d/nodeagent.conf /etc/tmpfiles.d/
systemctl daemon-reload`,
		[]string{"NA-UNIT-002", "NA-UNIT-003", "NA-UNIT-004", "NA-UNIT-005", "NA-UNIT-006", "NA-AGENT-004"}, nil,
	},
	{"overlay blocked", "rmmod overlay 2>/dev/null || true; echo install overlay /bin/false >/etc/modprobe.d/x.conf", "rm /etc/modprobe.d/x.conf", []string{"NA-KERNEL-002"}, nil},
	{"no shim", "rm /usr/local/bin/containerd-shim-nodeagent-v1", "install /opt/nodeagent/bin/containerd-shim-nodeagent-v1 /usr/local/bin/", []string{"NA-RUNTIME-003"}, nil},
	{"half a shim", "rm /usr/local/bin/nodeagent-shim", "install /opt/nodeagent/bin/nodeagent-shim /usr/local/bin/", []string{"NA-RUNTIME-003"}, nil},
	{"containerd stopped", "systemctl stop containerd", "systemctl start containerd", []string{"NA-RUNTIME-001"}, nil},
}

// TestCheckGuest: on a Debian with systemd and cgroup v2 the verb says what is
// missing before and after everything was installed, and what somebody broke.
func TestCheckGuest(t *testing.T) {
	t.Parallel()
	n := newCheckNode(t, guest.Options{})
	n.sh(t, "echo nameserver 192.0.2.53 >/etc/resolv.conf")
	t.Run("bare", func(t *testing.T) { wantIDs(t, n.check(t), bareIDs...) })
	t.Run("in a bed", func(t *testing.T) {
		n.g.GoTest(t, "nodeagent/test/node", "-run", "^TestCheck$/^(old_containerd|pods_of_others)$")
	})
	n.install(t)
	t.Run("installed", func(t *testing.T) { wantIDs(t, n.check(t), guestIDs...) })
	if t.Failed() {
		return
	}
	for _, b := range breakages {
		t.Run(b.name, func(t *testing.T) {
			n.sh(t, b.by)
			defer n.sh(t, b.mend)
			wantIDs(t, n.check(t, b.args...), slices.Concat(guestIDs, b.ids)...)
		})
	}
	t.Run("proxy beside a kubelet", func(t *testing.T) { n.proxyBesideKubelet(t) })
	t.Run("mended", func(t *testing.T) { wantIDs(t, n.check(t), guestIDs...) })
	t.Run("clock", func(t *testing.T) {
		n.sh(t, "date -s 2020-01-01")
		want := slices.DeleteFunc(slices.Clone(guestIDs), func(id string) bool { return id == "NA-NODE-002" })
		wantIDs(t, n.check(t), append(want, "NA-NODE-003")...)
	})
}

const proxyConfig = `apiVersion: nodeagent/v1alpha1
kind: NodeAgentConfiguration
proxyOnly: true
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clusterCIDR: 10.244.0.0/16
`

// noServer is a kubeconfig of an API server that is away.
const noServer = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`

// proxyBesideKubelet: the unit of a daemon that is nothing but a proxy stops no
// kubelet, reloads, and the verb finds nothing that is the kubelet's. The other
// unit, which this host has enabled, would stop it.
func (n *checkNode) proxyBesideKubelet(t *testing.T) {
	n.write(t, "/etc/nodeagent/config.yaml", proxyConfig)
	n.write(t, "/etc/kubernetes/kubelet.conf", noServer)
	defer n.sh(t, `systemctl stop nodeagent-proxy kubelet || true
rm -rf /etc/systemd/system/nodeagent-proxy.service /etc/kubernetes/kubelet.conf; systemctl daemon-reload`)
	defer n.write(t, "/etc/nodeagent/config.yaml", checkConfig)
	out := n.sh(t, `mkdir -p /opt/k; cp /bin/sleep /opt/k/kubelet
systemd-run -q --unit=kubelet /opt/k/kubelet 1000
install -m 600 /opt/nodeagent/tree/systemd/nodeagent-proxy.service /etc/systemd/system/
systemd-analyze verify /etc/systemd/system/nodeagent-proxy.service 2>&1 | grep -v world-inaccessible || true
systemctl daemon-reload
systemctl start nodeagent-proxy
systemctl is-active kubelet nodeagent-proxy`)
	if out != "active\nactive\n" {
		t.Errorf("kubelet and proxy: %s", out)
	}
	wantIDs(t, n.check(t, "--kubeconfig", "/etc/kubernetes/kubelet.conf"), "NA-NODE-002", "NA-UNIT-007")
	// What became of a reload is in the status; the process stays.
	out = n.sh(t, `pid=$(systemctl show -P MainPID nodeagent-proxy)
until_() { timeout 60 sh -c "until $1; do sleep 0.2; done"; }
echo nonsense: true >>/etc/nodeagent/config.yaml; systemctl reload nodeagent-proxy
until_ 'systemctl show -P StatusText nodeagent-proxy | grep -qi "reload refused"'
sed -i /nonsense/d /etc/nodeagent/config.yaml; systemctl reload nodeagent-proxy
until_ 'journalctl -u nodeagent-proxy | grep -q "take the new configuration"'
until_ 'systemctl show -P StatusText nodeagent-proxy | grep -q "^rules of services"'
systemctl is-active kubelet nodeagent-proxy
[ "$pid" = "$(systemctl show -P MainPID nodeagent-proxy)" ] || echo another process`)
	if out != "active\nactive\n" {
		t.Errorf("after a reload: %s", out)
	}
}

// TestCheckGuestWithoutMemory: a kernel told to leave the memory controller out.
func TestCheckGuestWithoutMemory(t *testing.T) {
	t.Parallel()
	n := newCheckNode(t, guest.Options{Cmdline: []string{"cgroup_disable=memory"}})
	n.sh(t, "echo nameserver 192.0.2.53 >/etc/resolv.conf")
	got := n.check(t)
	wantIDs(t, got, slices.Concat(bareIDs, []string{"NA-CGROUP-001"})...)
	if got["NA-CGROUP-001"] != "cgroup v2 without memory" {
		t.Error(got["NA-CGROUP-001"])
	}
}

// TestCheckGuestV1: cgroup v1 under systemd.
func TestCheckGuestV1(t *testing.T) {
	t.Parallel()
	n := newCheckNode(t, guest.Options{Cmdline: []string{v1}})
	n.sh(t, "echo nameserver 192.0.2.53 >/etc/resolv.conf")
	wantIDs(t, n.check(t), slices.Concat(bareIDs, []string{"NA-CGROUP-003"})...)
}
