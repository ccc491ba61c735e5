package machine_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
	"nodeagent/test/machine/guest"
)

// TestUnit: whatever happens to the daemon under systemd, no container notices,
// and nothing that happened to a container meanwhile is lost.
func TestUnit(t *testing.T) {
	t.Parallel()
	var o guest.Options
	if need.Lacks(need.Full) == "" {
		o.CPUs = 2 // the daemon's goroutines meet systemd and containerd side by side
	}
	n := newUnitNode(t, 15*time.Minute, o)
	n.manifests(map[string]string{
		"shm":     unitManifest("shm", "Always", "echo kept > /dev/shm/kept; "+forever),
		"done":    unitManifest("done", "Never", "exit 7"),
		"later":   unitManifest("later", "Never", "trap 'exit 3' TERM; while :; do sleep 3600 & wait; done"),
		"again":   unitManifest("again", "Always", "trap 'exit 4' TERM; while :; do sleep 3600 & wait; done"),
		"pids":    unitManifest("pids", "Always", forever, "shareProcessNamespace: true"),
		"host":    unitManifest("host", "Always", forever, "hostNetwork: true"),
		"web":     unitManifest("web", "Always", "echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"),
		"capable": unitManifest("capable", "Always", forever) + "\n    securityContext: {privileged: true}",
	})
	n.awaitPhases(2*time.Minute, map[string]string{"shm": "Running", "done": "Failed", "later": "Running", "again": "Running",
		"pids": "Running", "host": "Running", "web": "Running", "capable": "Running"})

	t.Run("Score", n.sub(testUnitScore))
	t.Run("Confined", n.sub(testUnitConfined))
	t.Run("Files", n.sub(testUnitFiles))
	t.Run("Stop", n.sub(testUnitStop))
	t.Run("Restart", n.sub(testUnitRestart))
	t.Run("Kill", n.sub(testUnitKill))
	t.Run("Crash", n.sub(testUnitCrash))
	t.Run("Watchdog", n.sub(testUnitWatchdog))
	t.Run("Reload", n.sub(testUnitReload))
	t.Run("Upgrade", n.sub(testUnitUpgrade))
	t.Run("ContainerdRestarts", n.sub(testUnitContainerd))
	t.Run("CNI", n.sub(testUnitCNI))
	t.Run("BadConfig", n.sub(testUnitBadConfig))
}

// sub runs f and then proves that no container noticed, unless f says that one
// may have.
func (n *unitNode) sub(f func(n *unitNode, excused map[string]bool)) func(*testing.T) {
	return func(t *testing.T) {
		n := n.on(t)
		before := n.running()
		excused := map[string]bool{}
		f(n, excused)
		n.await("the daemon is ready", time.Minute, n.ready)
		n.await("the pods run", time.Minute, func() bool { return len(n.running()) >= len(before)-len(excused) })
		after := n.running()
		for name := range excused {
			delete(before, name)
			delete(after, name)
		}
		if !maps.Equal(before, after) {
			t.Errorf("containers were\n%v\nand are\n%v", before, after)
		}
		if _, _, _, code := n.pods()["done"].last(); code != 7 {
			t.Errorf("the exit code 7 became %d", code)
		}
	}
}

// testUnitScore prints what systemd thinks of the unit's hardening, and holds it.
func testUnitScore(n *unitNode, _ map[string]bool) {
	out := n.sh("systemd-analyze security --no-pager nodeagent.service | tail -1")
	guest.Note(n, "%s", strings.TrimLeft(out, "→ "))
	var score float64 = 10
	for _, word := range strings.Fields(out) {
		if f, err := strconv.ParseFloat(word, 64); err == nil {
			score = f
		}
	}
	if score > 6.0 {
		n.Errorf("the unit scores %.1f, want 6.0 at most", score)
	}
	if out := n.sh("systemd-analyze verify /etc/systemd/system/nodeagent.service /etc/systemd/system/containerd.service 2>&1 | grep -v world-inaccessible || true"); out != "" {
		n.Errorf("systemd-analyze verify: %s", out)
	}
}

// testUnitConfined: the daemon has what the unit leaves it, and its pods have
// what they ask for.
func testUnitConfined(n *unitNode, _ map[string]bool) {
	pid := n.show("MainPID")
	status := n.sh("cat /proc/" + pid + "/status /proc/" + pid + "/oom_score_adj")
	for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2", "Umask:\t0077", "\n-999"} {
		if !strings.Contains(status, want) {
			n.Errorf("the daemon's status lacks %q", want)
		}
	}
	if got := n.sh("awk '/Max open files/ {print $4, $5}' /proc/" + pid + "/limits; cat /sys/fs/cgroup$(cut -d: -f3 /proc/" + pid + "/cgroup)/pids.max"); got != "1048576 1048576\nmax" {
		n.Errorf("the daemon's open files (soft, hard) and tasks are limited to %q", got)
	}
	if n.sh("readlink /proc/1/ns/mnt") != n.sh("readlink /proc/"+pid+"/ns/mnt") {
		n.Error("the daemon has a mount namespace of its own: its mounts reach nobody")
	}
	whole := n.sh("awk '/CapBnd/{print $2}' /proc/1/status")
	if own := n.sh("awk '/CapBnd/{print $2}' /proc/" + pid + "/status"); own == whole {
		n.Error("the daemon has every capability")
	}
	if got := n.sh("nodeagent exec capable -- cat /proc/1/status | awk '/CapEff/{print $2}'"); got != whole {
		n.Errorf("a privileged container has %s, the node %s", got, whole)
	}
	if got := n.sh("nodeagent exec pids -- cat /proc/1/comm"); got != "init" {
		n.Errorf("process 1 of a shared process namespace is %q", got)
	}
	web := n.pods()["web"]
	if len(web.IPs) == 0 {
		n.Fatal("the pod has no address")
	}
	if got := n.sh("busybox wget -q -O - http://" + web.IPs[0] + ":8080/"); got != "hello" {
		n.Errorf("the pod answers %q", got)
	}
	if got := n.sh("stat -c %a /var/log/pods /var/log/pods/* /var/log/pods/*/* /var/log/containers /sys/fs/cgroup/kubepods.slice/kubepods-besteffort.slice/* | sort | uniq -c | grep -v ' 644$'"); strings.Contains(got, "700") {
		n.Errorf("modes: %s", got)
	}
}

// testUnitFiles: what tmpfiles.d, sysctl.d and modules-load.d promise holds.
func testUnitFiles(n *unitNode, _ map[string]bool) {
	out := n.sh(`stat -c '%a %U %n' /run/nodeagent /var/lib/nodeagent /etc/kubernetes/manifests /var/lib/kubelet /var/log/pods /var/log/containers /run/nodeagent/nodeagent.sock`)
	want := `700 root /run/nodeagent
700 root /var/lib/nodeagent
700 root /etc/kubernetes/manifests
750 root /var/lib/kubelet
755 root /var/log/pods
755 root /var/log/containers
600 root /run/nodeagent/nodeagent.sock`
	if out != want {
		n.Errorf("directories:\n%s\nwant\n%s", out, want)
	}
	// The values are what the kernel has now, those of the daemon included.
	n.sh(`sed -n 's/^-\{0,1\}\([a-z].*\) = \(.*\)/\1 \2/p' /etc/sysctl.d/90-nodeagent.conf | while read -r key value; do
		[ "$(cat /proc/sys/$(echo $key | tr . /))" = "$value" ] || { echo "$key is not $value"; exit 1; }
	done`)
	n.sh(`grep -v '^#' /etc/modules-load.d/nodeagent.conf | while read -r m; do
		[ -d /sys/module/$m ] || modinfo -F filename $m | grep -q builtin || { echo "$m is not loaded"; exit 1; }
	done`)
	// An ageing run, and one that makes things anew, take nothing away.
	before := n.state()
	n.sh("systemd-tmpfiles --create --clean --remove")
	if after := n.state(); after != before {
		n.Errorf("systemd-tmpfiles changed\n%s\nto\n%s", before, after)
	}
}

// testUnitStop: while the unit is stopped, pods run on, a container's end is
// recorded, and one that should run again waits for the daemon.
func testUnitStop(n *unitNode, excused map[string]bool) {
	excused["later"], excused["again"] = true, true
	before, pods := n.state(), n.pods()
	n.sh("systemctl stop nodeagent.service")
	if after := n.state(); after != before {
		n.Errorf("stopping the unit changed\n%s\nto\n%s", before, after)
	}
	if n.show("ActiveState") != "inactive" {
		n.Error("the unit is not stopped")
	}
	// The command line answers from containerd and the kernel.
	if now := n.pods(); now["shm"].Phase != "Running" || len(now) != len(pods) {
		n.Errorf("with the daemon stopped: %+v", now)
	}
	for _, name := range []string{"later", "again"} {
		_, _, pid, _ := pods[name].last()
		n.sh("kill -TERM " + strconv.Itoa(pid))
		n.await(name+" has an exit record", time.Minute, func() bool {
			id, _, _, _ := pods[name].last()
			_, err := n.g.Run(n.ctx, "test", "-e", "/run/nodeagent/exit/"+id+".json")
			return err == nil
		})
	}
	n.sh("systemctl start nodeagent.service")
	n.awaitPhases(time.Minute, map[string]string{"later": "Failed", "shm": "Running"})
	if _, _, _, code := n.pods()["later"].last(); code != 3 {
		n.Errorf("the exit code 3 became %d", code)
	}
	n.await("again runs for the second time", time.Minute, func() bool {
		p := n.pods()["again"]
		_, state, _, _ := p.last()
		return state == "Running" && p.Restarts == 1
	})
	if got := n.sh("cat /run/nodeagent/ns/*/shm/kept"); got != "kept" {
		n.Errorf("/dev/shm has %q", got)
	}
}

func testUnitRestart(n *unitNode, _ map[string]bool) {
	pid := n.show("MainPID")
	n.sh("systemctl restart nodeagent.service")
	if n.show("MainPID") == pid {
		n.Error("nothing was restarted")
	}
}

func testUnitKill(n *unitNode, _ map[string]bool) { n.ends("kill -KILL") }

// testUnitCrash: a Go program that panics ends with 2, which is also the code of
// a wrong command line; it must come back. SIGABRT ends it like a panic.
func testUnitCrash(n *unitNode, _ map[string]bool) { n.ends("kill -ABRT") }

// testUnitWatchdog: a daemon that stands still is ended and comes back.
func testUnitWatchdog(n *unitNode, _ map[string]bool) {
	took := n.ends("kill -STOP")
	guest.Note(n, "the watchdog needed %s", took.Round(time.Second))
	if out := n.sh("journalctl -b --no-pager -u nodeagent.service"); !strings.Contains(out, "Watchdog timeout") {
		n.Error("it was not the watchdog")
	}
}

// ends does something to the daemon upon which systemd starts another.
func (n *unitNode) ends(how string) time.Duration {
	n.Helper()
	pid, restarts := n.show("MainPID"), n.show("NRestarts")
	n.sh(how + " " + pid)
	took := n.await("another daemon is ready after "+how, 2*time.Minute, func() bool {
		now := n.show("MainPID")
		return now != pid && now != "0" && n.ready()
	})
	if n.show("NRestarts") == restarts {
		n.Error("systemd did not restart it")
	}
	return took
}

// testUnitReload: a good configuration is in force when systemctl returns, a bad
// one is refused and told, and the daemon stays the process that it was.
func testUnitReload(n *unitNode, _ map[string]bool) {
	pid := n.show("MainPID")
	const file = "/etc/nodeagent/config.yaml"
	n.sh("cp " + file + " /root/config.good; sed -i 's/podPidsLimit: .*/podPidsLimit: 512/' " + file)
	n.sh("systemctl reload nodeagent.service")
	if !n.ready() || n.show("MainPID") != pid || n.sh("cat /proc/"+pid+"/comm") != "nodeagent" {
		n.Error("the daemon is not the process that it was")
	}
	n.manifest("limited", "Always", forever)
	n.awaitPhases(time.Minute, map[string]string{"limited": "Running"})
	if got := n.sh("cat /sys/fs/cgroup/kubepods.slice/kubepods-besteffort.slice/*/pids.max | sort -n | head -1"); got != "512" {
		n.Errorf("a pod started after the reload has pids.max %s, want 512", got)
	}

	n.sh("echo 'nonsense: [' >> " + file)
	out, err := n.g.Run(n.ctx, "systemctl", "reload", "nodeagent.service")
	if err == nil {
		n.Errorf("a bad configuration was taken: %s", out)
	}
	if out := n.sh("journalctl -b --no-pager -n 20 -u nodeagent.service"); !strings.Contains(out, file+": ") {
		n.Errorf("the journal does not say what is wrong:\n%s", out)
	}
	n.sh("kill -HUP " + pid)
	n.await("the status tells of the refusal", time.Minute, func() bool { return strings.Contains(n.show("StatusText"), "eload refused: "+file) })
	n.sh("cp /root/config.good " + file + "; systemctl reload nodeagent.service")
	n.await("the status is good again", time.Minute, func() bool { return !strings.Contains(n.show("StatusText"), "refused") })
	if n.show("MainPID") != pid {
		n.Error("the daemon was restarted")
	}
	n.sh("rm /etc/kubernetes/manifests/limited.yaml")
	n.await("the pod is gone", time.Minute, func() bool { _, there := n.pods()["limited"]; return !there })
}

// testUnitUpgrade: other programs take over, and the first ones again, as
// docs/install.md says how. Pods keep the shim that they have; one that starts
// afterwards has the new one, and is removed by the old daemon.
func testUnitUpgrade(n *unitNode, _ map[string]bool) {
	n.sh("mkdir -p /root/was && cd /usr/local/bin && cp nodeagent containerd-shim-nodeagent-v1 nodeagent-shim /root/was/")
	dir := n.TempDir()
	root, err := bed.ModuleRoot(n.ctx)
	if err != nil {
		n.Fatal(err)
	}
	build := exec.CommandContext(n.ctx, "go", "build", "-trimpath", "-ldflags", "-s -w -X main.version=next", "-o", dir+"/",
		"./cmd/nodeagent", "./cmd/containerd-shim-nodeagent-v1", "./cmd/nodeagent-shim")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+n.g.Arch())
	if out, err := build.CombinedOutput(); err != nil {
		n.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"nodeagent", "containerd-shim-nodeagent-v1", "nodeagent-shim"} {
		if err := n.g.Put(n.ctx, filepath.Join(dir, name), "/root/next/"+name); err != nil {
			n.Fatal(err)
		}
	}
	first := n.sh("nodeagent version -o json | grep '\"daemon\"'")
	for _, from := range []string{"/root/next", "/root/was"} {
		n.sh("cd " + from + " && install -m 755 nodeagent-shim containerd-shim-nodeagent-v1 nodeagent /usr/local/bin/; systemctl restart nodeagent.service")
		version := n.sh("nodeagent version -o json | grep '\"daemon\"'")
		if next := strings.Contains(version, `"next"`); next != (from == "/root/next") || !next && version != first {
			n.Errorf("with %s the daemon is %s, at first %s", from, version, first)
		}
		if from == "/root/next" {
			n.manifest("young", "Always", forever)
			n.awaitPhases(time.Minute, map[string]string{"young": "Running"})
		}
	}
	n.sh("rm /etc/kubernetes/manifests/young.yaml")
	n.await("the pod is gone", time.Minute, func() bool { _, there := n.pods()["young"]; return !there })
}

// testUnitContainerd: a containerd that restarts takes neither the daemon nor a
// container along.
func testUnitContainerd(n *unitNode, _ map[string]bool) {
	pid := n.show("MainPID")
	n.sh("systemctl restart containerd.service")
	n.await("the runtime is well", time.Minute, func() bool {
		out, err := n.g.Shell(n.ctx, "busybox wget -q -O - http://127.0.0.1:10248/healthz")
		return err == nil && strings.TrimSpace(out) == "ok"
	})
	if n.show("MainPID") != pid {
		n.Error("the daemon was restarted")
	}
}

// testUnitCNI: CNI plugins, which have the rights of the unit, do their work.
func testUnitCNI(n *unitNode, _ map[string]bool) {
	n.sh(`mkdir -p /opt/cni && ln -sfn /usr/lib/cni /opt/cni/bin && mkdir -p /etc/cni/net.d && cat > /etc/cni/net.d/10-test.conflist <<'EOF'
{"cniVersion": "1.0.0", "name": "test", "plugins": [
  {"type": "bridge", "bridge": "cnitest0", "isGateway": true, "ipMasq": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}, {"type": "tuning", "sysctl": {"net.ipv4.tcp_keepalive_time": "600"}}]}
EOF
`)
	n.manifest("cni", "Always", "echo by cni > /tmp/index.html; exec httpd -f -p 8080 -h /tmp")
	n.awaitPhases(time.Minute, map[string]string{"cni": "Running"})
	p := n.pods()["cni"]
	if len(p.IPs) != 1 || !strings.HasPrefix(p.IPs[0], "10.9.0.") {
		n.Fatalf("the pod's addresses are %v", p.IPs)
	}
	if got := n.sh("busybox wget -q -O - http://" + p.IPs[0] + ":8080/"); got != "by cni" {
		n.Errorf("the pod answers %q", got)
	}
	n.sh("rm /etc/kubernetes/manifests/cni.yaml")
	n.await("the pod is gone", time.Minute, func() bool { _, there := n.pods()["cni"]; return !there })
	if out := n.sh("ls /var/lib/cni/networks/test | grep -v -e lock -e last || true; ip -o link show master cnitest0"); out != "" {
		n.Errorf("the plugins left %s", out)
	}
	n.sh("rm /etc/cni/net.d/10-test.conflist; ip link del cnitest0")
}

// testUnitBadConfig: a configuration that cannot work keeps the unit down, and
// says so; nothing is tried again and again.
func testUnitBadConfig(n *unitNode, _ map[string]bool) {
	const file = "/etc/nodeagent/config.yaml"
	n.sh("cp " + file + " /root/config.good; echo 'nonsense: [' >> " + file)
	if _, err := n.g.Run(n.ctx, "systemctl", "restart", "nodeagent.service"); err == nil {
		n.Error("it started")
	}
	if got := n.show("ActiveState") + " " + n.show("ExecMainStatus"); got != "failed 78" {
		n.Errorf("the unit is %s, want failed 78", got)
	}
	n.sh("cp /root/config.good " + file + "; systemctl start nodeagent.service")
}
