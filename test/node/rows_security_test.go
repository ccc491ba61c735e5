package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// TestRuntimeClass: a pod's containers are run by the handler that it names, its
// overhead is in its cgroup, and an unknown handler is refused by name.
func TestRuntimeClass(t *testing.T) {
	need.Have(t, need.Root)
	dir := t.TempDir()
	tools, err := bed.Tools(t.Context(), nil)
	must(t, err)
	runc := filepath.Join(dir, "second-runc")
	must(t, os.WriteFile(runc, fmt.Appendf(nil, "#!/bin/sh\necho \"$*\" >>%s/calls\nexec %s/runc \"$@\"\n", dir, tools), 0o755))
	n := newRowsNode(t, bed.AgentOptions{NodeAgent: fmt.Sprintf("runtimes: {second: {binary: %s}}\n", runc)})
	n.write(t, "classy", spec("runtimeClassName: second\noverhead: {cpu: 250m, memory: 32Mi}", show+"\nresources: {limits: {cpu: 250m, memory: 64Mi}}"))
	n.write(t, "classless", spec("runtimeClassName: kata", show))
	s := n.shown(t, "classy", "app")
	p := n.pod(t, "classy", "running", inPhase(corev1.PodRunning))
	id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	must(t, err)
	if !strings.Contains(string(calls), id) {
		t.Errorf("the handler's binary was not asked for container %s:\n%s", id, calls)
	}
	if need.Lacks(need.CgroupV2) == "" {
		own := filepath.Dir(s.cgroup(t, ""))
		checkFiles(t, filepath.Join("/sys/fs/cgroup", own), map[string]string{"memory.max": fmt.Sprint(96 << 20), "cpu.max": "50000 100000"})
	} else {
		checkFiles(t, filepath.Join("/sys/fs/cgroup/memory", filepath.Dir(s.cgroup(t, "memory"))), map[string]string{"memory.limit_in_bytes": fmt.Sprint(96 << 20)})
		checkFiles(t, filepath.Join("/sys/fs/cgroup/cpu", filepath.Dir(s.cgroup(t, "cpu"))), map[string]string{"cpu.shares": "512", "cpu.cfs_quota_us": "50000"})
	}
	p = n.ended(t, "classless")
	if p.Status.Phase != corev1.PodFailed || p.Status.Reason != "UnknownRuntimeHandler" || !strings.Contains(p.Status.Message, `"kata"`) || !strings.Contains(p.Status.Message, "second") {
		t.Errorf("an unknown handler is told as %s: %s: %s", p.Status.Phase, p.Status.Reason, p.Status.Message)
	}
}

// TestSecurityRows: what a container is without a word, and how users that would
// break a promise are told.
func TestSecurityRows(t *testing.T) {
	n := newRowsNode(t, bed.AgentOptions{})
	n.importImage(t, func(s *image.Spec) { s.Name, s.User = imageNamed, "nobody" }, false)
	const sysctls = "command: [/podtool, cat, /proc/sys/net/ipv4/ip_unprivileged_port_start, /proc/sys/net/ipv4/ping_group_range]"
	once := "restartPolicy: Never\n"
	pods := map[string]string{
		"open":     spec(once, sysctls),
		"closed":   spec(once+"securityContext: {sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: '1024'}]}", sysctls),
		"host":     spec(once+"hostNetwork: true", sysctls),
		"rootuser": spec("securityContext: {runAsNonRoot: true}", show+"\nsecurityContext: {runAsUser: 0}"),
		"rootgood": spec("", show+"\nsecurityContext: {runAsNonRoot: true}"),
		"named":    spec("securityContext: {runAsNonRoot: true}", "image: "+imageNamed+"\n"+show),
		"numbered": spec("securityContext: {runAsNonRoot: true}", "image: "+imageNamed+"\n"+show+"\nsecurityContext: {runAsUser: 65534}"),
		"again":    spec("securityContext: {runAsNonRoot: true, runAsUser: 1000}", "command: [/podtool, seq, show, ;, exit, '1']"),
	}
	for name, text := range pods {
		n.write(t, name, text)
	}
	var ofHost []byte
	must(t, n.b.Do(func() error {
		for _, file := range []string{"ip_unprivileged_port_start", "ping_group_range"} {
			b, err := os.ReadFile("/proc/thread-self/root/proc/sys/net/ipv4/" + file)
			if err != nil {
				return err
			}
			ofHost = append(ofHost, b...)
		}
		return nil
	}))
	for name, want := range map[string]string{"open": "0\n0\t2147483647\n", "closed": "1024\n0\t2147483647\n", "host": string(ofHost)} {
		if got := n.log(n.ended(t, name), "app", 0); got != want {
			t.Errorf("the sysctls of pod %s are %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"rootuser": `container's runAsUser breaks non-root policy (pod: "rootuser-node_default(UID)", container: app)`,
		"rootgood": `container has runAsNonRoot and image will run as root (pod: "rootgood-node_default(UID)", container: app)`,
		"named":    `container has runAsNonRoot and image has non-numeric user (nobody), cannot verify user is non-root (pod: "named-node_default(UID)", container: app)`,
	} {
		p := n.pod(t, name, "refused", waitingFor("CreateContainerConfigError"))
		want = strings.Replace(want, "UID", string(p.UID), 1)
		if m := p.Status.ContainerStatuses[0].State.Waiting.Message; !strings.HasSuffix(m, want) {
			t.Errorf("pod %s is told as\n%s, want\n%s", name, m, want)
		}
	}
	if s := n.shown(t, "numbered", "app"); s.UID != 65534 {
		t.Errorf("a user by number runs as %d", s.UID)
	}
	p := n.pod(t, "again", "ended again", func(p *corev1.Pod) bool {
		c := p.Status.ContainerStatuses
		return len(c) == 1 && c[0].RestartCount > 0 && c[0].State.Waiting != nil && c[0].State.Waiting.Reason == "CrashLoopBackOff"
	})
	// The log of the run before may be gone by now.
	run := int(p.Status.ContainerStatuses[0].RestartCount)
	if text := n.log(p, "app", run); !strings.Contains(text, `"uid":1000`) {
		t.Errorf("run %d of a pod's container is of another user: %s", run, text)
	}
	t.Run("user", n.userTold)
}

// userTold: whom a container runs as is in its status, also by the next daemon.
func (n *rowsNode) userTold(t *testing.T) {
	s := n.shown(t, "numbered", "app")
	for _, daemon := range []string{"first", "second"} {
		u := n.pod(t, "numbered", "running", inPhase(corev1.PodRunning)).Status.ContainerStatuses[0].User
		if u == nil || u.Linux.UID != int64(s.UID) || u.Linux.GID != int64(s.GID) || len(u.Linux.SupplementalGroups) != len(s.Groups) {
			t.Errorf("the %s daemon says that it runs as %+v; it is %d:%d with %v", daemon, u, s.UID, s.GID, s.Groups)
		}
		if daemon == "first" {
			must(t, n.a.Restart(n.ctx))
		}
	}
}

const imageNamed = "localhost/nodeagent/named:v1"

// checkFiles holds files of a directory to what they shall say.
func checkFiles(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	for file, text := range want {
		got, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || strings.TrimSpace(string(got)) != text {
			t.Errorf("%s of %s is %q, %v; want %q", file, dir, got, err, text)
		}
	}
}

const confinedBy = "command: [/podtool, cat, /proc/self/attr/current]"

// TestAppArmor: containers are confined by the profile that they ask for, by the
// default one without a word, and not at all where they say so; a profile that is
// not there lets nothing start.
func TestAppArmor(t *testing.T) {
	need.Have(t, need.Root, need.AppArmor)
	const profile = "nodeagent-test"
	parser := func(text string, args ...string) error {
		cmd := exec.CommandContext(t.Context(), "apparmor_parser", args...)
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apparmor_parser: %w: %s", err, out)
		}
		return nil
	}
	text := "profile " + profile + " flags=(attach_disconnected,mediate_deleted) {\n file,\n network,\n capability,\n signal,\n deny /tmp/forbidden w,\n}\n"
	must(t, parser(text, "--skip-cache", "--replace"))
	defer func() { must(t, parser(text, "--remove")) }()
	n := newRowsNode(t, bed.AgentOptions{})
	local := "{type: Localhost, localhostProfile: " + profile + "}"
	once := "restartPolicy: Never\n"
	for name, text := range map[string]string{
		"silent":   spec(once, confinedBy),
		"default":  spec(once+"securityContext: {appArmorProfile: {type: RuntimeDefault}}", confinedBy),
		"free":     spec(once+"securityContext: {appArmorProfile: {type: RuntimeDefault}}", confinedBy+"\nsecurityContext: {appArmorProfile: {type: Unconfined}}"),
		"local":    spec(once, confinedBy+"\nsecurityContext: {appArmorProfile: "+local+"}"),
		"mighty":   spec(once, confinedBy+"\nsecurityContext: {privileged: true}"),
		"denied":   spec(once, "command: [/podtool, write, /tmp/forbidden, x]\nsecurityContext: {appArmorProfile: "+local+"}"),
		"unloaded": spec("", confinedBy+"\nsecurityContext: {appArmorProfile: {type: Localhost, localhostProfile: nodeagent-absent}}"),
	} {
		n.write(t, name, text)
	}
	const ofOurs = "cri-containerd.apparmor.d (enforce)"
	for name, want := range map[string]string{
		"silent": ofOurs, "default": ofOurs, "free": "unconfined", "local": profile + " (enforce)", "mighty": "unconfined",
	} {
		if got := strings.TrimSpace(n.log(n.ended(t, name), "app", 0)); got != want {
			t.Errorf("the container of pod %s is confined by %q, want %q", name, got, want)
		}
	}
	if p := n.ended(t, "denied"); p.Status.Phase != corev1.PodFailed {
		t.Errorf("a container wrote what its profile forbids: %s", p.Status.Phase)
	}
	p := n.pod(t, "unloaded", "refused", waitingFor("CreateContainerConfigError"))
	if m := p.Status.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(m, "nodeagent-absent") {
		t.Errorf("a profile that is not loaded is told as %q", m)
	}
}
