package podnet

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakePlugin is a CNI plugin whose behaviour is a word in a file. Like real
// IPAM plugins it keeps the addresses it gave in files of its own.
const fakePlugin = `#!/bin/sh
ctl=%s
in=$(cat)
echo "$CNI_COMMAND $CNI_CONTAINERID netns=$CNI_NETNS if=$CNI_IFNAME args=$CNI_ARGS $in" >> $ctl/log
fail() { echo '{"cniVersion":"0.4.0","code":100,"msg":"told to fail"}'; exit 1; }
case "$CNI_COMMAND" in
ADD)
	echo taken > $ctl/ips/$CNI_CONTAINERID
	case "$(cat $ctl/add)" in
	fail) fail ;;
	hang) sleep 1000 & wait ;;
	noip) echo '{"cniVersion":"0.4.0","ips":[]}'; exit 0 ;;
	garbage) echo 'hello'; exit 0 ;;
	esac
	echo '{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}],"ips":[{"version":"6","address":"fd99::5/64","interface":0},{"version":"4","address":"10.99.0.5/24","interface":0},{"version":"4","address":"10.99.0.6/24","interface":0}]}' ;;
DEL)
	case "$(cat $ctl/del)" in
	fail) fail ;;
	once) echo ok > $ctl/del; fail ;;
	hang) sleep 1000 & wait ;;
	esac
	rm -f $ctl/ips/$CNI_CONTAINERID ;;
esac
`

const fakeConf = `{"cniVersion":"0.4.0","name":"fake","plugins":[{"type":"fake","capabilities":{"portMappings":true,"dns":true,"bandwidth":true,"cgroupPath":true,"io.kubernetes.cri.pod-annotations":true}}]}`

// cniHost is a node with the fake plugin and a configuration for it.
func cniHost(t *testing.T) (h *host, ctl func(file, word string), dir string) {
	t.Helper()
	h = newHost(t, dual...)
	dir = filepath.Join(h.dir, "ctl")
	must(t, os.MkdirAll(filepath.Join(dir, "ips"), 0o755))
	ctl = func(file, word string) {
		t.Helper()
		must(t, os.WriteFile(filepath.Join(dir, file), []byte(word), 0o600))
	}
	ctl("add", "ok")
	ctl("del", "ok")
	must(t, os.WriteFile(filepath.Join(h.cfg.CNIBinDir, "fake"), fmt.Appendf(nil, fakePlugin, dir), 0o755))
	h.conf("10-fake.conflist", fakeConf)
	t.Cleanup(func() {
		left, _ := os.ReadDir(filepath.Join(dir, "ips"))
		for _, e := range left {
			t.Errorf("left: plugin's address of %s", e.Name())
		}
	})
	return h, ctl, dir
}

func (h *host) conf(name, content string) {
	h.t.Helper()
	must(h.t, os.WriteFile(filepath.Join(h.cfg.CNIConfDir, name), []byte(content), 0o644))
}

func TestCNI(t *testing.T) {
	h, _, dir := cniHost(t)
	n := h.start()
	must(t, n.Ready())
	p := h.newPod(PortMapping{ContainerPort: 80, HostPort: 8080, HostIP: "192.0.2.10"})
	p.req.Annotations = map[string]string{"kubernetes.io/ingress-bandwidth": "10M", "x": "y;z=1"}
	p.req.DNS = &DNS{Servers: []string{"192.0.2.53"}}
	p.req.CgroupParent = "/kubepods/podx"
	res, err := n.Setup(context.Background(), p.req)
	must(t, err)
	if fmt.Sprint(res.Addrs) != "[10.99.0.5 fd99::5]" {
		t.Errorf("addresses %v", res.Addrs)
	}
	h.down(n, p)
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	must(t, err)
	for _, want := range []string{
		"ADD " + p.req.SandboxID + " netns=" + p.path + " if=eth0", "DEL " + p.req.SandboxID,
		"IgnoreUnknown=1", "K8S_POD_NAMESPACE=default", "K8S_POD_NAME=" + p.req.Name,
		"K8S_POD_INFRA_CONTAINER_ID=" + p.req.SandboxID, "K8S_POD_UID=" + p.req.UID,
		`"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":"192.0.2.10"`,
		`"ingressRate":10000000`, `"servers":["192.0.2.53"]`, `"cgroupPath":"/kubepods/podx"`, `"x":"y;z=1"`,
	} {
		// Plugins decode names of fields whatever their case.
		if !strings.Contains(strings.ToLower(string(log)), strings.ToLower(want)) {
			t.Errorf("the plugin was not told %s:\n%s", want, log)
		}
	}
}

// TestCNIFails: whatever the plugin does wrong, its address comes back.
func TestCNIFails(t *testing.T) {
	for _, word := range []string{"fail", "noip", "garbage", "hang"} {
		t.Run(word, func(t *testing.T) {
			h, ctl, _ := cniHost(t)
			n := h.start()
			ctl("add", word)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			p := h.newPod()
			since := time.Now()
			if _, err := n.Setup(ctx, p.req); err == nil {
				t.Error("setup succeeded")
			} else {
				t.Log(err)
			}
			if d := time.Since(since); d > 5*time.Second {
				t.Errorf("it took %v", d)
			}
			noPluginRuns(t, p.req.SandboxID)
			h.checkNothingLeft()
			ctl("add", "ok")
			_, err := n.Setup(context.Background(), p.req)
			must(t, err)
			h.down(n, p)
		})
	}
}

func noPluginRuns(t *testing.T, sandbox string) {
	t.Helper()
	procs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range procs {
		env, _ := os.ReadFile(f)
		if strings.Contains(string(env), "CNI_CONTAINERID="+sandbox+"\x00") && !zombie(f) {
			t.Errorf("a plugin's process is left: %s", f)
		}
	}
}

func zombie(environ string) bool {
	stat, err := os.ReadFile(filepath.Join(filepath.Dir(environ), "stat"))
	return err != nil || strings.Contains(string(stat), ") Z ") || strings.Contains(string(stat), ") X ")
}

// TestCNIDeleteFailsOnce: a rollback that fails is done again by Run.
func TestCNIDeleteFailsOnce(t *testing.T) {
	h, ctl, _ := cniHost(t)
	n := h.start()
	ctl("add", "fail")
	ctl("del", "once")
	p := h.newPod()
	if _, err := n.Setup(context.Background(), p.req); err == nil {
		t.Error("setup succeeded")
	}
	eventually(t, "the failed setup undone", func() bool { return n.record(p.req.SandboxID) == nil })
}

// TestCNIDeleteFails: Teardown says so, nothing is forgotten, a restart and
// another configuration change nothing, and the next try is with the
// configuration of the ADD.
func TestCNIDeleteFails(t *testing.T) {
	h, ctl, dir := cniHost(t)
	n := h.start()
	p := h.up(n)
	for _, word := range []string{"fail", "hang"} {
		ctl("del", word)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := n.Teardown(ctx, p.req); err == nil {
			t.Errorf("teardown succeeded though the plugin's answer is %s", word)
		}
		noPluginRuns(t, p.req.SandboxID)
	}
	ctl("del", "fail")
	h.conf("10-fake.conflist", strings.ReplaceAll(fakeConf, `"name":"fake"`, `"name":"other"`))
	n = h.start()
	if err := n.Prune(context.Background(), none); err == nil {
		t.Error("prune succeeded")
	}
	ctl("del", "ok")
	p.delete()
	must(t, n.Prune(context.Background(), none))
	log, _ := os.ReadFile(filepath.Join(dir, "log"))
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	last := lines[len(lines)-1]
	if !strings.Contains(last, "DEL") || !strings.Contains(last, "netns= ") || !strings.Contains(last, `"name":"fake"`) {
		t.Errorf("last call %s", last)
	}
}

// TestCNIRecordLost: without a journal the plugin is told all the same to take
// its address back.
func TestCNIRecordLost(t *testing.T) {
	h, _, dir := cniHost(t)
	p := h.up(h.start())
	must(t, os.RemoveAll(filepath.Join(h.cfg.StateDir, "podnet")))
	n := h.start()
	must(t, n.Teardown(context.Background(), p.req))
	if left, _ := os.ReadDir(filepath.Join(dir, "ips")); len(left) != 0 {
		t.Errorf("the plugin holds %v", left)
	}
	p.delete()
}

// TestCNIManyFailures: starts of which most fail leak no address.
func TestCNIManyFailures(t *testing.T) {
	cycles := 90
	if testing.Short() {
		cycles = 30
	}
	h, ctl, dir := cniHost(t)
	n := h.start()
	p := h.newPod()
	for i := range cycles {
		ctl("add", []string{"ok", "fail", "noip"}[i%3])
		p.req.SandboxID = fmt.Sprintf("sb-many-%d", i)
		if _, err := n.Setup(context.Background(), p.req); err == nil {
			must(t, n.Teardown(context.Background(), p.req))
		}
		if left, _ := os.ReadDir(filepath.Join(dir, "ips")); len(left) != 0 {
			t.Fatalf("cycle %d left %v", i, left)
		}
	}
}

// TestConfChanges are seen without a restart, and pods of the bridge stay.
func TestConfChanges(t *testing.T) {
	h, _, _ := cniHost(t)
	must(t, os.RemoveAll(h.cfg.CNIConfDir))
	n := h.start()
	bridged := h.up(n, PortMapping{ContainerPort: 80, HostPort: 8080})
	serve(t, bridged.netns, "tcp", "a", 80)
	inForce := func() string {
		n.mu.Lock()
		defer n.mu.Unlock()
		switch {
		case n.confErr != nil:
			return "error"
		case n.conf == nil:
			return ""
		}
		return filepath.Base(n.conf.file)
	}
	wait := func(want string) {
		t.Helper()
		eventually(t, want+" in force", func() bool { return inForce() == want })
	}
	wait("")
	must(t, os.Mkdir(h.cfg.CNIConfDir, 0o755))
	h.conf("20-fake.conflist", fakeConf)
	wait("20-fake.conflist")
	plugged := h.up(n)
	if plugged.addrs[0] != netip.MustParseAddr("10.99.0.5") {
		t.Errorf("addresses %v are not the plugin's", plugged.addrs)
	}
	wantAnswer(t, h.outside, "tcp", nodeAddr4, 8080, "a", outsideAddr4)
	h.conf("20-fake.conflist", fakeConf[:40]) // being written
	h.conf("10-bad.conf", `{"cniVersion":"0.4.0","name":"x","type":"../../bin/sh"}`)
	must(t, n.Ready())
	h.conf("20-fake.conflist", fakeConf)
	h.conf("15-single.conf", `{"cniVersion":"0.4.0","name":"x","type":"fake"}`)
	wait("15-single.conf")
	h.down(n, h.up(n))
	must(t, os.Remove(filepath.Join(h.cfg.CNIConfDir, "15-single.conf")))
	wait("20-fake.conflist")
	must(t, os.Remove(filepath.Join(h.cfg.CNIConfDir, "20-fake.conflist")))
	wait("error") // the bad one is left, and the bridge is not what was asked for
	if err := n.Ready(); err == nil || !strings.Contains(err.Error(), "cni plugin not initialized") || !strings.Contains(err.Error(), "../../bin/sh") {
		t.Errorf("ready: %v", err)
	}
	must(t, os.Remove(filepath.Join(h.cfg.CNIConfDir, "10-bad.conf")))
	wait("")
	h.down(n, bridged, plugged, h.up(n))
}

func TestConfRefused(t *testing.T) {
	h := newHost(t, dual...)
	for name, c := range map[string]struct {
		content string
		harm    func(dir, file string) error
	}{
		"traversal":         {`{"name":"x","type":"../../bin/sh"}`, nil},
		"traversal in list": {`{"name":"x","plugins":[{"type":"a"},{"type":"b/c"}]}`, nil},
		"traversal in ipam": {`{"name":"x","type":"a","ipam":{"type":"../x"}}`, nil},
		"traversal in name": {`{"name":"../x","type":"a"}`, nil},
		"no type":           {`{"name":"x"}`, nil},
		"no name":           {`{"type":"a"}`, nil},
		"not JSON":          {`name: x`, nil},
		"empty":             {``, nil},
		"others can write":  {fakeConf, func(_, f string) error { return os.Chmod(f, 0o646) }},
		"group can write":   {fakeConf, func(_, f string) error { return os.Chmod(f, 0o664) }},
		"foreign owner":     {fakeConf, func(_, f string) error { return os.Chown(f, 1000, 0) }},
		"open directory":    {fakeConf, func(d, _ string) error { return os.Chmod(d, 0o777) }},
		"foreign directory": {fakeConf, func(d, _ string) error { return os.Chown(d, 1000, 0) }},
		"link to a foreign": {fakeConf, func(d, f string) error {
			return os.Rename(f, d+"/x") // replaced below
		}},
		"fifo": {"", func(_, f string) error { _ = os.Remove(f); return unix.Mkfifo(f, 0o600) }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(h.dir, "conf", name)
			must(t, os.MkdirAll(dir, 0o755))
			file := filepath.Join(dir, "10-x.conf")
			must(t, os.WriteFile(file, []byte(c.content), 0o644))
			if c.harm != nil {
				must(t, c.harm(dir, file))
			}
			if name == "link to a foreign" {
				must(t, os.Chown(dir+"/x", 1000, 0))
				must(t, os.Symlink(dir+"/x", file))
			}
			conf, bad, err := findConf(dir)
			if conf != nil || err == nil || len(bad) != 1 {
				t.Errorf("conf %v, bad %v, error %v", conf, bad, err)
			}
		})
	}
}

func TestBandwidth(t *testing.T) {
	for s, want := range map[string]uint64{"1k": 1000, "10M": 10_000_000, "1P": 1e15} {
		b, err := bandwidth(map[string]string{"kubernetes.io/egress-bandwidth": s})
		if err != nil || b.EgressRate != want || b.IngressRate != 0 {
			t.Errorf("%s: %+v, %v", s, b, err)
		}
	}
	for _, s := range []string{"", "x", "999", "2P", "-1k"} {
		if _, err := bandwidth(map[string]string{"kubernetes.io/ingress-bandwidth": s}); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}
