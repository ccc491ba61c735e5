package node

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
	"nodeagent/test/image"
)

const (
	show     = "command: [/podtool, seq, show, ;, sleep, forever]"
	imageOwn = "localhost/nodeagent/rows:v1"
)

// defaultCaps are the 14 capabilities that a container gets unless told otherwise.
const defaultCaps = "00000000a80425fb"

// containerPods are the pods of TestContainerIsWhatWasAskedFor.
func containerPods() map[string]string {
	return map[string]string{
		"plain":   spec("", show),
		"ids":     spec("securityContext: {supplementalGroups: [3000], fsGroup: 5000}", show+"\nsecurityContext: {runAsUser: 1000, runAsGroup: 2000}"),
		"merged":  spec("", show+"\nsecurityContext: {runAsUser: 65534}"),
		"strict":  spec("securityContext: {supplementalGroupsPolicy: Strict, supplementalGroups: [3000]}", show+"\nsecurityContext: {runAsUser: 65534}"),
		"nonroot": spec("", show+"\nsecurityContext: {runAsNonRoot: true}"),
		"caps":    spec("", show+"\nsecurityContext: {capabilities: {add: [NET_ADMIN], drop: [ALL]}, allowPrivilegeEscalation: false}"),
		"mighty":  spec("", show+"\nsecurityContext: {privileged: true}"),
		"unconf":  spec("", show+"\nsecurityContext: {seccompProfile: {type: Unconfined}}"),
		"rofs":    spec("restartPolicy: Never", "command: [/podtool, write, /tmp/x, text]\nsecurityContext: {readOnlyRootFilesystem: true}"),
		"rwfs":    spec("restartPolicy: Never", "command: [/podtool, write, /tmp/x, text]"),
		"names":   spec("hostname: alpha\nsubdomain: beta\nhostAliases: [{ip: 192.0.2.99, hostnames: [gamma]}]\nrestartPolicy: Never", "command: [/podtool, cat, /etc/hosts, /etc/resolv.conf, /etc/hostname]"),
		"dnsnone": spec("dnsPolicy: None\ndnsConfig: {nameservers: [192.0.2.53], searches: [example.test], options: [{name: ndots, value: '2'}]}\nrestartPolicy: Never", "command: [/podtool, cat, /etc/resolv.conf]"),
		"config":  spec("", "image: "+imageOwn),
		"command": spec("restartPolicy: Never", "image: "+imageOwn+"\ncommand: [/podtool, seq, show]\nworkingDir: /tmp\nenv: [{name: A, value: pod}, {name: B, value: $(A)-$$(A)}]"),
		"two":     spec("", show) + "  - {name: side, image: " + image.Example + ", command: [/podtool, seq, show, ;, sleep, forever]}\n",
		"hostnet": spec("hostNetwork: true", show),
		"hostpid": spec("hostPID: true\nhostIPC: true", show),
		"shared":  spec("shareProcessNamespace: true", show) + "  - {name: side, image: " + image.Example + ", command: [/podtool, seq, show, ;, sleep, forever]}\n",
		"hugenam": spec("hostname: "+strings.Repeat("h", 63), show),
		"guarant": spec("", show+"\nresources: {limits: {cpu: 250m, memory: 64Mi}}"),
		"burst":   spec("", show+"\nresources: {requests: {cpu: 500m, memory: 256Mi}, limits: {memory: 512Mi}}"),
		"limited": spec("", shell("cat /proc/self/limits; echo that is all")),
	}
}

// TestContainerIsWhatWasAskedFor: what a pod asks for is what its processes see
// and what the kernel was told.
func TestContainerIsWhatWasAskedFor(t *testing.T) {
	ctx, b, a := newNode(t, bed.Options{NoFile: noFile}, bed.AgentOptions{})
	n := &rowsNode{ctx: ctx, b: b, a: a}
	n.importImage(t, func(s *image.Spec) {
		s.Name, s.Entrypoint, s.Cmd = imageOwn, []string{"/podtool", "seq"}, []string{"show", ";", "sleep", "forever"}
		s.Env, s.User, s.WorkingDir = []string{"A=image", "C=image", "PATH=/"}, "nobody:extra", "/etc"
		s.Volumes = []string{"/data"}
	}, false)
	n.kept = containerPods()
	if !testing.Short() { // else those that are looked at
		for name := range n.kept {
			n.begin(t, name)
		}
	}
	t.Run("ids", n.ids)
	t.Run("capabilities", n.capabilities)
	t.Run("root file system", n.rootfs)
	t.Run("names", n.names)
	t.Run("image", n.imageConfig)
	t.Run("namespaces", n.namespaces)
	t.Run("cgroups", n.cgroups)
	t.Run("process limits", n.processLimits)
	t.Run("logs", n.logPaths)
	t.Run("slices", func(t *testing.T) {
		need.Have(t, need.CgroupV2, need.Systemd)
		n.systemdKeeps(t)
	})
	t.Run("whole container out of memory", func(t *testing.T) {
		need.Have(t, need.CgroupV2)
		n.oomGroup(t)
	})
}

func (n *rowsNode) ids(t *testing.T) {
	for name, want := range map[string]struct {
		uid, gid int
		groups   []int
	}{
		"plain":  {0, 0, []int{0}},
		"ids":    {1000, 2000, []int{2000, 3000, 5000}},
		"merged": {65534, 65534, []int{4242, 65534}},
		"strict": {65534, 65534, []int{3000, 65534}},
		"config": {65534, 4242, []int{4242}},
	} {
		s := n.shown(t, name, "app")
		slices.Sort(s.Groups)
		if s.UID != want.uid || s.GID != want.gid || !slices.Equal(slices.Compact(s.Groups), want.groups) {
			t.Errorf("pod %s runs as %d:%d with %v, want %d:%d with %v", name, s.UID, s.GID, s.Groups, want.uid, want.gid, want.groups)
		}
	}
	n.pod(t, "nonroot", "refused as root", waitingFor("CreateContainerConfigError"))
}

func (n *rowsNode) capabilities(t *testing.T) {
	mine, err := os.ReadFile("/proc/self/status")
	must(t, err)
	_, all, _ := strings.Cut(string(mine), "CapBnd:")
	all, _, _ = strings.Cut(strings.TrimSpace(all), "\n")
	for name, want := range map[string]struct{ caps, noNewPrivs, seccomp string }{
		"plain":  {defaultCaps, "0", "2"},
		"caps":   {"0000000000001000", "1", "2"},
		"mighty": {all, "0", "0"},
		"unconf": {defaultCaps, "0", "0"},
	} {
		s := n.shown(t, name, "app").Status
		if s["CapEff"] != want.caps || s["CapBnd"] != want.caps || s["CapPrm"] != want.caps || s["NoNewPrivs"] != want.noNewPrivs || s["Seccomp"] != want.seccomp {
			t.Errorf("pod %s has %v, want %+v", name, s, want)
		}
		if s["CapAmb"] != "0000000000000000" {
			t.Errorf("pod %s has ambient capabilities %s", name, s["CapAmb"])
		}
	}
	if s := n.shown(t, "merged", "app").Status; s["CapEff"] != "0000000000000000" || s["CapBnd"] != defaultCaps {
		t.Errorf("another user than root has %v", s)
	}
}

func (n *rowsNode) rootfs(t *testing.T) {
	if p := n.ended(t, "rofs"); p.Status.Phase != corev1.PodFailed {
		t.Errorf("a read-only root file system was written: %s", p.Status.Phase)
	}
	if p := n.ended(t, "rwfs"); p.Status.Phase != corev1.PodSucceeded {
		t.Errorf("the root file system cannot be written: %+v", p.Status)
	}
	s := n.shown(t, "plain", "app")
	if line := s.mount("/"); !strings.Contains(line, " - overlay ") {
		t.Errorf("the root is %q, want an overlay", line)
	}
	for _, point := range []string{"/proc/sys", "/proc/sysrq-trigger", "/proc/bus", "/proc/fs", "/proc/irq", "/sys"} {
		if f := strings.Fields(s.mount(point)); there(point) && (len(f) < 6 || !slices.Contains(strings.Split(f[5], ","), "ro")) {
			t.Errorf("%s is mounted as %q, want read-only", point, f)
		}
	}
	for _, point := range []string{"/proc/kcore", "/proc/keys", "/sys/firmware", "/dev/shm", "/dev/mqueue", "/dev/pts"} {
		if there(point) && s.mount(point) == "" {
			t.Errorf("nothing is mounted on %s", point)
		}
	}
	if line := s.mount("/dev/shm"); !strings.Contains(line, "size=65536k") {
		t.Errorf("/dev/shm is %q, want 64 MiB", line)
	}
	m := n.shown(t, "mighty", "app")
	for _, point := range []string{"/proc/kcore", "/proc/sys", "/sys/firmware"} {
		if line := m.mount(point); line != "" {
			t.Errorf("in a privileged container %s is masked: %q", point, line)
		}
	}
}

// there tells whether this kernel has the file: sandboxes hide some.
func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (n *rowsNode) names(t *testing.T) {
	p := n.ended(t, "names")
	text := n.log(p, "app", 0)
	ip := p.Status.PodIP
	for _, want := range []string{
		"# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n",
		"\talpha.beta.default.svc.cluster.local\talpha\n",
		"192.0.2.99\tgamma\n",
		"search default.svc.cluster.local svc.cluster.local cluster.local",
		"nameserver 192.0.2.10\n", "options ndots:5\n",
		"\nalpha\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the pod's files lack %q (address %s):\n%s", want, ip, text)
		}
	}
	p = n.ended(t, "dnsnone")
	if text, want := n.log(p, "app", 0), "search example.test\nnameserver 192.0.2.53\noptions ndots:2\n"; text != want {
		t.Errorf("resolv.conf of dnsPolicy None is %q, want %q", text, want)
	}
	if s := n.shown(t, "plain", "app"); s.Hostname != "plain-node" {
		t.Errorf("the hostname is %q", s.Hostname)
	}
	if s := n.shown(t, "hugenam", "app"); s.Hostname != strings.Repeat("h", 63) {
		t.Errorf("the hostname is %q", s.Hostname)
	}
	mine, _ := os.Hostname()
	if s := n.shown(t, "hostnet", "app"); s.Hostname != mine {
		t.Errorf("on the host network the hostname is %q, want %q", s.Hostname, mine)
	}
}

func (n *rowsNode) imageConfig(t *testing.T) {
	s := n.shown(t, "config", "app")
	if !slices.Equal(s.Args, []string{"/podtool", "seq", "show", ";", "sleep", "forever"}) || s.Cwd != "/etc" ||
		!slices.Contains(s.Env, "A=image") || !slices.Contains(s.Env, "HOSTNAME=config-node") {
		t.Errorf("the image's configuration became %q in %s with %q", s.Args, s.Cwd, s.Env)
	}
	line := s.mount("/data")
	if line == "" || strings.Contains(line, " - tmpfs ") {
		t.Errorf("the image's volume is %q, want a directory", line)
	}
	// The image's CMD is no argument of the pod's command.
	s = n.shown(t, "command", "app")
	if !slices.Equal(s.Args, []string{"/podtool", "seq", "show"}) || s.Cwd != "/tmp" || !slices.Contains(s.Env, "A=pod") ||
		!slices.Contains(s.Env, "B=pod-$(A)") || !slices.Contains(s.Env, "C=image") || slices.Contains(s.Env, "A=image") {
		t.Errorf("the pod's command became %q in %s with %q", s.Args, s.Cwd, s.Env)
	}
}

func (n *rowsNode) namespaces(t *testing.T) {
	host := namespaces(t, n.a.Pid)
	differ := func(name string, s shown, same ...string) {
		for ns, link := range host {
			if ns != "user" && ns != "mnt" && (s.Namespaces[ns] == link) != slices.Contains(same, ns) {
				t.Errorf("pod %s: namespace %s is %s and the node's is %s", name, ns, s.Namespaces[ns], link)
			}
		}
		if s.Namespaces["mnt"] == host["mnt"] {
			t.Errorf("pod %s has the node's mounts", name)
		}
	}
	differ("plain", n.shown(t, "plain", "app"))
	differ("hostnet", n.shown(t, "hostnet", "app"), "net", "uts")
	differ("hostpid", n.shown(t, "hostpid", "app"), "pid", "ipc")
	for name, want := range map[string]bool{"two": false, "shared": true} {
		app, side := n.shown(t, name, "app").Namespaces, n.shown(t, name, "side").Namespaces
		for _, ns := range []string{"net", "ipc", "uts"} {
			if app[ns] != side[ns] {
				t.Errorf("the containers of pod %s have %s %s and %s", name, ns, app[ns], side[ns])
			}
		}
		if (app["pid"] == side["pid"]) != want {
			t.Errorf("the containers of pod %s have pid %s and %s", name, app["pid"], side["pid"])
		}
	}
}

func (n *rowsNode) logPaths(t *testing.T) {
	p := n.pod(t, "two", "running", inPhase(corev1.PodRunning))
	for _, c := range p.Status.ContainerStatuses {
		log := filepath.Join(n.a.PodLogs(), "default_two-node_"+string(p.UID), c.Name, "0.log")
		raw, err := os.ReadFile(log)
		must(t, err)
		if f := strings.SplitN(string(raw), " ", 4); len(f) != 4 || f[1] != "stdout" || f[2] != "F" || !strings.HasSuffix(f[0], "Z") {
			t.Errorf("%s begins with %.60q", log, raw)
		}
		id := strings.TrimPrefix(c.ContainerID, "containerd://")
		links, err := filepath.Glob(filepath.Join(n.a.Dir, "*", "two-node_default_"+c.Name+"-"+id+".log"))
		if err != nil || len(links) != 1 {
			t.Errorf("the links to %s are %v, %v", log, links, err)
			continue
		}
		if to, _ := os.Readlink(links[0]); to != log {
			t.Errorf("%s leads to %s, want %s", links[0], to, log)
		}
	}
}

func (n *rowsNode) cgroups(t *testing.T) {
	if need.Lacks(need.CgroupV2) == "" {
		n.unified(t)
		return
	}
	var info unix.Sysinfo_t
	must(t, unix.Sysinfo(&info))
	for name, want := range map[string]struct {
		class  corev1.PodQOSClass
		below  string
		score  int
		limits map[string]string // controller/file of the container; "pod:" of the pod
	}{
		"plain": {corev1.PodQOSBestEffort, "/kubepods/besteffort/pod", 1000, map[string]string{
			"cpu/cpu.shares": "2", "cpu/cpu.cfs_quota_us": "-1", "pod:pids/pids.max": "4096"}},
		"guarant": {corev1.PodQOSGuaranteed, "/kubepods/pod", -997, map[string]string{
			"cpu/cpu.shares": "256", "cpu/cpu.cfs_quota_us": "25000", "memory/memory.limit_in_bytes": "67108864",
			"pod:cpu/cpu.shares": "256", "pod:cpu/cpu.cfs_quota_us": "25000", "pod:memory/memory.limit_in_bytes": "67108864"}},
		"burst": {corev1.PodQOSBurstable, "/kubepods/burstable/pod", burstableScore(t, 256<<20), map[string]string{
			"cpu/cpu.shares": "512", "memory/memory.limit_in_bytes": "536870912",
			"pod:cpu/cpu.shares": "512", "pod:memory/memory.limit_in_bytes": "536870912", "pod:cpu/cpu.cfs_quota_us": "-1"}},
	} {
		p := n.pod(t, name, "running", inPhase(corev1.PodRunning))
		s := n.shown(t, name, "app")
		if p.Status.QOSClass != want.class {
			t.Errorf("pod %s is %s, want %s", name, p.Status.QOSClass, want.class)
		}
		if path := s.cgroup(t, "memory"); !strings.Contains(path, want.below+string(p.UID)+"/") {
			t.Errorf("pod %s is in %s, want below %s", name, path, want.below)
		}
		score, _ := strconv.Atoi(s.OOMScore)
		if floor := lowestScore(t); score != max(want.score, floor) {
			t.Errorf("pod %s has oom_score_adj %d, want %d (lowest possible %d)", name, score, want.score, floor)
		}
		for file, value := range want.limits {
			rest, ofPod := strings.CutPrefix(file, "pod:")
			controller, leaf, _ := strings.Cut(rest, "/")
			dir := filepath.Join("/sys/fs/cgroup", controller, s.cgroup(t, controller))
			if ofPod {
				dir = filepath.Dir(dir)
			}
			b, err := os.ReadFile(filepath.Join(dir, leaf))
			if got := strings.TrimSpace(string(b)); err != nil || got != value {
				t.Errorf("pod %s: %s is %q, %v, want %s", name, file, got, err, value)
			}
		}
	}
}

// burstableScore is the oom_score_adj of a Burstable container by its request.
func burstableScore(t *testing.T, request int64) int {
	t.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	must(t, err)
	var kib int64
	_, err = fmt.Sscanf(string(text), "MemTotal: %d kB", &kib)
	must(t, err)
	return int(min(999, max(3, 1000-1000*request/(kib<<10))))
}

// lowestScore is the least oom_score_adj that a child of this process can get.
func lowestScore(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	must(t, err)
	now, err := strconv.Atoi(strings.TrimSpace(string(b)))
	must(t, err)
	if os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0) == nil {
		must(t, os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(now)), 0))
		return -1000
	}
	return now
}
