package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/test/bed"
	"nodeagent/test/image"
)

const imageSignal = "localhost/nodeagent/signal:v1"

const (
	initPod = `  initContainers:
  - {name: one, image: ` + image.Example + `, command: [/podtool, print, "3", 20ms]}
  - {name: two, image: ` + image.Example + `, command: [/podtool, print, "3", 20ms]}
`
	initFails = `  restartPolicy: Never
  initContainers:
  - {name: one, image: ` + image.Example + `, command: [/podtool, exit, "3"]}
`
	messages = `  restartPolicy: Never
  containers:
`
	twoDocuments = "apiVersion: v1\nkind: Pod\nmetadata: {name: doc1}\nspec:\n" + sleeper +
		"---\napiVersion: v1\nkind: Pod\nmetadata: {name: doc2, namespace: other}\nspec:\n" + sleeper
)

// lifecyclePods are the pods of TestPodsLive.
func lifecyclePods() map[string]string {
	long := strings.Repeat("a", 5000) + "end"
	four := messages
	for i := range 4 {
		four += fmt.Sprintf("  - {name: c%d, image: %s, command: [/podtool, write, /dev/termination-log, %s]}\n", i, image.Example, long)
	}
	return map[string]string{
		"init":       initPod + spec("", "command: [/podtool, seq, print, '1', ;, sleep, forever]"),
		"initfail":   initFails + spec("", "command: [/podtool, sleep, forever]"),
		"never0":     spec("restartPolicy: Never", "command: [/podtool, exit, '0']"),
		"never1":     spec("restartPolicy: Never", "command: [/podtool, exit, '1']"),
		"onfail0":    spec("restartPolicy: OnFailure", "command: [/podtool, exit, '0']"),
		"onfail1":    spec("restartPolicy: OnFailure", "command: [/podtool, exit, '1']"),
		"always0":    spec("restartPolicy: Always", "command: [/podtool, seq, print, '2', ;, exit, '0']"),
		"oom":        spec("restartPolicy: Never", "command: [/podtool, alloc, '256']\nresources: {limits: {memory: 48Mi}}"),
		"message":    spec("restartPolicy: Never", "command: [/podtool, write, /dev/termination-log, farewell]"),
		"longmsg":    spec("restartPolicy: Never", "command: [/podtool, write, /dev/termination-log, "+long+"]"),
		"four":       four,
		"fallback":   spec("restartPolicy: Never", "command: [/podtool, seq, stderr, last words, ;, exit, '3']\nterminationMessagePolicy: FallbackToLogsOnError"),
		"nofallback": spec("restartPolicy: Never", "command: [/podtool, seq, stderr, last words, ;, exit, '3']"),
		"fallback0":  spec("restartPolicy: Never", "command: [/podtool, stderr, last words]\nterminationMessagePolicy: FallbackToLogsOnError"),
		"signal":     spec("", "image: "+imageSignal+"\ncommand: [sh, -c, 'trap \"\" TERM; trap \"exit 42\" USR1; echo set; while :; do sleep 0.1; done']"),
		"deaf":       spec("hostPID: true", "command: [/podtool, fork, '3', deaf]"),
		"stubborn":   spec("", "command: [/podtool, deaf]"),
		"port":       spec("", "command: [/podtool, serve, '[::]:8080', port pod]\nports: [{containerPort: 8080, hostPort: 18080}]"),
		"volume":     "  volumes: [{name: v, nfs: {server: s, path: /p}}]\n" + spec("", "command: [/podtool, sleep, forever]"),
		"selinux":    spec("securityContext: {seLinuxOptions: {level: s0}}\nrestartPolicy: Never", "command: [/podtool, exit, '0']"),
		"sysctl":     spec("securityContext: {sysctls: [{name: net.ipv4.conf.all.route_localnet, value: '1'}]}", "command: [/podtool, sleep, forever]"),
		"safesysctl": spec("securityContext: {sysctls: [{name: net.ipv4.tcp_syncookies, value: '0'}]}\nrestartPolicy: Never", "command: [/podtool, cat, /proc/sys/net/ipv4/tcp_syncookies]"),
		"usersns":    spec("hostUsers: false", "command: [/podtool, sleep, forever]"),
		"nopull":     spec("", "image: localhost/nodeagent/absent:v1\nimagePullPolicy: Never"),
		"badpull":    spec("", "image: localhost/nodeagent/absent:v2"),
		"badname":    spec("", "image: 'localhost/UPPER:v1'"),
		"notfound":   spec("", "command: [/no-such-program]"),
		"longline":   spec("restartPolicy: Never", "command: [/podtool, stderr, "+strings.Repeat("x", 20000)+"]"),
	}
}

// TestPodsLive: how pods come up, go on and end.
func TestPodsLive(t *testing.T) {
	registries := t.TempDir()
	n := newRowsNode(t, bed.AgentOptions{NodeAgent: "registryConfigDir: " + registries})
	n.mirrored(t, registries)
	n.importImage(t, func(s *image.Spec) { s.Name, s.StopSignal = imageSignal, "SIGUSR1" }, true)
	// The cgroup of a class is made once and stays.
	n.write(t, "class", spec("restartPolicy: Never", "command: [/podtool, exit, '0']\nresources: {requests: {cpu: 1m}}"))
	n.ended(t, "class")
	must(t, n.a.RemoveManifests())
	waitGone(t, n.ctx, n.a)
	before, err := n.b.Snapshot(n.ctx)
	must(t, err)
	n.kept = map[string]string{}
	for name, text := range lifecyclePods() {
		if name == "onfail1" || name == "always0" {
			n.kept[name] = text // held back for 10 s only, which is when they are looked at
			continue
		}
		n.write(t, name, text)
	}
	must(t, n.a.WriteManifest("docs", twoDocuments))
	t.Run("init containers", n.initContainers)
	t.Run("restart policies", n.restartPolicies)
	t.Run("out of memory", n.outOfMemory)
	t.Run("termination messages", n.terminationMessages)
	t.Run("refused", n.refused)
	t.Run("images", n.images)
	t.Run("network", n.network)
	t.Run("long lines", n.longLines)
	t.Run("documents", n.documents)
	t.Run("stop signal", n.stopSignal)
	t.Run("kill", n.killed)
	t.Run("edit", n.edited)
	t.Run("lost records", n.counted)
	must(t, n.a.RemoveManifests())
	ctx, cancel := context.WithTimeout(n.ctx, 3*rowLimit)
	defer cancel()
	if err := n.b.WaitSame(ctx, before); err != nil {
		t.Error(err)
	}
}

func (n *rowsNode) initContainers(t *testing.T) {
	p := n.pod(t, "init", "running", inPhase(corev1.PodRunning))
	n.printed(t, "init", "app")
	var stamps []string
	for _, c := range []string{"one", "two", "app"} {
		raw, err := os.ReadFile(filepath.Join(n.a.PodLogs(), "default_init-node_"+string(p.UID), c, "0.log"))
		must(t, err)
		for line := range strings.Lines(string(raw)) {
			stamps = append(stamps, line[:strings.IndexByte(line, ' ')])
		}
	}
	if len(stamps) != 7 || !slices.IsSorted(stamps) {
		t.Errorf("init containers did not run one after another: %v", stamps)
	}
	for _, s := range p.Status.InitContainerStatuses {
		if s.State.Terminated == nil || s.State.Terminated.Reason != "Completed" || !s.Ready {
			t.Errorf("init container %s is %+v", s.Name, s)
		}
	}
	p = n.ended(t, "initfail")
	if s := p.Status.ContainerStatuses[0]; p.Status.Phase != corev1.PodFailed || s.ContainerID != "" || s.State.Waiting == nil || s.State.Waiting.Reason != "PodInitializing" {
		t.Errorf("after a failed init container the pod is %s with %+v", p.Status.Phase, s)
	}
}

func (n *rowsNode) restartPolicies(t *testing.T) {
	for name, want := range map[string]struct {
		phase  corev1.PodPhase
		code   int32
		reason string
	}{
		"never0":  {corev1.PodSucceeded, 0, "Completed"},
		"never1":  {corev1.PodFailed, 1, "Error"},
		"onfail0": {corev1.PodSucceeded, 0, "Completed"},
	} {
		p := n.ended(t, name)
		s := terminatedState(p)
		if p.Status.Phase != want.phase || s == nil || s.ExitCode != want.code || s.Reason != want.reason || p.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Errorf("pod %s is %s with %+v", name, p.Status.Phase, p.Status.ContainerStatuses)
		}
	}
	for name, want := range map[string]struct {
		code   int32
		reason string
	}{"onfail1": {1, "Error"}, "always0": {0, "Completed"}} {
		p := n.pod(t, name, "held back", waitingFor("CrashLoopBackOff"))
		s := p.Status.ContainerStatuses[0]
		last := s.LastTerminationState.Terminated
		if s.RestartCount != 1 || !strings.HasPrefix(s.State.Waiting.Message, "back-off 10s restarting failed container=app") ||
			last == nil || last.ExitCode != want.code || last.Reason != want.reason || p.Status.Phase != corev1.PodRunning {
			t.Errorf("pod %s is %s with %+v", name, p.Status.Phase, s)
		}
		if name == "always0" {
			n.lastRunKept(t, p)
		}
	}
}

// lastRunKept: of two dead runs the log of the last is there, and soon no other.
func (n *rowsNode) lastRunKept(t *testing.T, p *corev1.Pod) {
	t.Helper()
	if text := n.log(p, "app", 1); text != "line 0\nline 1\n" {
		t.Errorf("the log of the last run is %q", text)
	}
	within(t, n.ctx, rowLimit, func() bool { return n.log(p, "app", 0) == "" })
}

func (n *rowsNode) outOfMemory(t *testing.T) {
	if s := terminatedState(n.ended(t, "oom")); s == nil || s.Reason != "OOMKilled" || s.ExitCode != 137 {
		t.Errorf("a container that took more than its limit ended as %+v", s)
	}
}

func (n *rowsNode) terminationMessages(t *testing.T) {
	for name, want := range map[string]string{
		"message": "farewell\n", "fallback": "last words\n", "nofallback": "", "fallback0": "",
		"longmsg": strings.Repeat("a", 4092) + "end\n",
	} {
		if s := terminatedState(n.ended(t, name)); s == nil || s.Message != want {
			t.Errorf("the last message of pod %s is %+v, want %d bytes: %.20q", name, s, len(want), want)
		}
	}
	for _, s := range n.ended(t, "four").Status.ContainerStatuses {
		if got := len(s.State.Terminated.Message); got != 3072 {
			t.Errorf("of 12 KiB for four containers, %s has %d bytes", s.Name, got)
		}
	}
}

func (n *rowsNode) refused(t *testing.T) {
	for name, want := range map[string][2]string{
		"volume":  {"UnsupportedField", "spec.volumes[0].nfs"},
		"usersns": {"UnsupportedField", "spec.hostUsers"},
		"sysctl":  {"SysctlForbidden", "net.ipv4.conf.all.route_localnet"},
	} {
		p := n.ended(t, name)
		if p.Status.Phase != corev1.PodFailed || p.Status.Reason != want[0] || !strings.Contains(p.Status.Message, want[1]) {
			t.Errorf("pod %s is %s: %s: %s", name, p.Status.Phase, p.Status.Reason, p.Status.Message)
		}
		if p.Status.ContainerStatuses[0].ContainerID != "" {
			t.Errorf("pod %s was refused and has a container", name)
		}
	}
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err != nil {
		if p := n.ended(t, "selinux"); p.Status.Phase != corev1.PodSucceeded {
			t.Errorf("a pod with a label that has no effect here is %s: %s", p.Status.Phase, p.Status.Message)
		}
	}
	if text := n.log(n.ended(t, "safesysctl"), "app", 0); text != "0\n" {
		t.Errorf("a safe sysctl is %q in the pod", text)
	}
}

func (n *rowsNode) images(t *testing.T) {
	n.pod(t, "nopull", "refused", waitingFor("ErrImageNeverPull"))
	p := n.pod(t, "badpull", "refused", waitingFor("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"))
	if m := p.Status.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(m, "localhost/nodeagent/absent:v2") {
		t.Errorf("a failed pull is told as %q", m)
	}
	n.pod(t, "badname", "refused", waitingFor("InvalidImageName"))
	p = n.pod(t, "notfound", "ended", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && (s[0].LastTerminationState.Terminated != nil || s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "RunContainerError")
	})
	if text := fmt.Sprintf("%+v", p.Status.ContainerStatuses); !strings.Contains(text, "no-such-program") {
		t.Errorf("a program that is not there is told as %s", text)
	}
}

func (n *rowsNode) network(t *testing.T) {
	p := n.pod(t, "port", "running", inPhase(corev1.PodRunning))
	n.printed(t, "port", "app")
	if len(p.Status.PodIPs) != 2 || p.Status.PodIP != p.Status.PodIPs[0].IP || !strings.HasPrefix(p.Status.PodIP, "10.244.") ||
		!strings.HasPrefix(p.Status.PodIPs[1].IP, "fd00:10:244:") || p.Status.HostIP != bed.NodeIP {
		t.Fatalf("the addresses are %v on %v", p.Status.PodIPs, p.Status.HostIPs)
	}
	for _, address := range []string{bed.NodeIP + ":18080", p.Status.PodIPs[0].IP + ":8080", "[" + p.Status.PodIPs[1].IP + "]:8080"} {
		if body, err := n.get(address); body != "port pod\n" {
			t.Errorf("%s answers %q, %v", address, body, err)
		}
	}
}

func (n *rowsNode) longLines(t *testing.T) {
	p := n.ended(t, "longline")
	raw, err := os.ReadFile(filepath.Join(n.a.PodLogs(), "default_longline-node_"+string(p.UID), "app", "0.log"))
	must(t, err)
	var kinds []string
	var total int
	for line := range strings.Lines(string(raw)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		kinds = append(kinds, f[1]+f[2])
		total += len(f[3])
		if len(f[3]) > 16<<10 {
			t.Errorf("a record holds %d bytes", len(f[3]))
		}
	}
	if !slices.Equal(kinds, []string{"stderrP", "stderrF"}) || total != 20000 {
		t.Errorf("a line of 20000 bytes became %v with %d bytes", kinds, total)
	}
}

func (n *rowsNode) documents(t *testing.T) {
	must(t, n.a.WaitPhase(n.ctx, "default/doc1-node", corev1.PodRunning))
	must(t, n.a.WaitPhase(n.ctx, "other/doc2-node", corev1.PodRunning))
}

// goes calls change, waits until the pod that had this UID is gone, and returns
// it as it was last, and who of its name was told of meanwhile.
func (n *rowsNode) goes(t *testing.T, p *corev1.Pod, change func()) (last *corev1.Pod, others []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(n.ctx, rowLimit)
	defer cancel()
	began := false
	for c, err := range n.a.Watch(ctx) {
		must(t, err)
		if !began {
			began = true
			change()
		}
		switch {
		case c.Pod.UID == p.UID && c.Gone:
			return c.Pod, others // nobody may have been told of its end before
		case c.Pod.UID == p.UID:
		case c.Pod.Namespace == p.Namespace && c.Pod.Name == p.Name:
			others = append(others, string(c.Pod.UID))
		}
	}
	return nil, others
}

func (n *rowsNode) stopSignal(t *testing.T) {
	p := n.pod(t, "signal", "running", inPhase(corev1.PodRunning))
	n.printed(t, "signal", "app")
	last, _ := n.goes(t, p, func() { must(t, n.a.RemoveManifest("signal")) })
	if s := terminatedState(last); s == nil || s.ExitCode != 42 {
		t.Errorf("with STOPSIGNAL SIGUSR1 the container ended as %+v", last.Status.ContainerStatuses)
	}
}

// killed: who does not obey TERM is killed after the grace period, with every
// child of its cgroup.
func (n *rowsNode) killed(t *testing.T) {
	p := n.pod(t, "deaf", "running", inPhase(corev1.PodRunning))
	n.printed(t, "deaf", "app")
	must(t, n.a.WriteManifest("obeys", manifest("obeys", sleeper)))
	must(t, n.a.WaitPhase(n.ctx, "default/obeys-node", corev1.PodRunning))
	id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
	alive := func() (pids []int) {
		for pid := range n.b.Processes() {
			if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)); strings.Contains(string(b), id) {
				pids = append(pids, pid)
			}
		}
		return pids
	}
	if pids := alive(); len(pids) != 4 {
		t.Fatalf("the container's processes are %v, want 4", pids)
	}
	n.goes(t, p, func() { must(t, n.a.RemoveManifest("deaf")) })
	if pids := alive(); len(pids) > 0 {
		t.Errorf("processes %v outlive the pod", pids)
	}
	p = n.pod(t, "stubborn", "running", inPhase(corev1.PodRunning))
	n.printed(t, "stubborn", "app")
	began := time.Now()
	last, _ := n.goes(t, p, func() { must(t, n.a.RemoveManifest("stubborn")) })
	if s := terminatedState(last); s == nil || s.ExitCode != 137 {
		t.Errorf("a container that ignores TERM ended as %+v", last.Status.ContainerStatuses)
	}
	if took := time.Since(began); took < 2*time.Second || took > 10*time.Second {
		t.Errorf("with a grace period of 2 s it took %s", took)
	}
}

// edited: a changed manifest is another pod, which begins when the first is gone.
func (n *rowsNode) edited(t *testing.T) {
	must(t, n.a.WriteManifest("edit", manifest("edit", sleeper)))
	p := n.pod(t, "edit", "running", inPhase(corev1.PodRunning))
	must(t, n.b.WaitCatches(n.ctx, "podtool", int(unix.SIGTERM)))
	began := time.Now()
	_, others := n.goes(t, p, func() {
		must(t, n.a.WriteManifest("edit", manifest("edit", strings.Replace(sleeper, "forever", "2h", 1))))
	})
	if len(others) > 0 {
		t.Errorf("pods %v of the same name began before the first was gone", others)
	}
	next := n.pod(t, "edit", "running again", func(now *corev1.Pod) bool { return now.UID != p.UID && bed.Ready(now) })
	if next.Status.ContainerStatuses[0].RestartCount != 0 || next.Spec.Containers[0].Command[2] != "2h" {
		t.Errorf("the edited pod is %+v", next.Status.ContainerStatuses)
	}
	t.Logf("edited within %s", time.Since(began))
}

// counted: where the runtime has lost a container's records, its logs tell how
// many runs there were.
func (n *rowsNode) counted(t *testing.T) {
	const uid = "11111111-2222-3333-4444-555555555555"
	dir := filepath.Join(n.a.PodLogs(), "default_counted-node_"+uid, "app")
	must(t, os.MkdirAll(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "4.log"), []byte("2026-01-01T00:00:00.000000000Z stdout F before\n"), 0o640))
	text := manifest("counted", sleeper)
	must(t, n.a.WriteManifest("counted", strings.Replace(text, "name: counted\n", "name: counted\n  uid: "+uid+"\n", 1)))
	p := n.pod(t, "counted", "running", inPhase(corev1.PodRunning))
	if got := p.Status.ContainerStatuses[0].RestartCount; got != 5 {
		t.Errorf("after a run that only its log 4.log tells of, the restart count is %d, want 5", got)
	}
	if text := n.log(p, "app", 4); text != "before\n" {
		t.Errorf("the log of the run before is %q", text)
	}
}

// mirrored: hosts.toml of a registry sends its pulls elsewhere.
func (n *rowsNode) mirrored(t *testing.T, registries string) {
	t.Helper()
	host := imageHost(t, n.b)
	dir := filepath.Join(registries, "registry.example")
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte("[host.\"http://"+host+"\"]\n  capabilities = [\"pull\", \"resolve\"]\n"), 0o644))
	n.write(t, "mirror", spec("restartPolicy: Never", "image: registry.example/some/thing:v1\ncommand: [/podtool, exit, '0']"))
	p := n.ended(t, "mirror")
	if p.Status.Phase != corev1.PodSucceeded {
		t.Errorf("a pod whose image comes from a mirror is %+v", p.Status)
	}
	// The image is called as the pod calls it, and identified by what its registry has.
	s := p.Status.ContainerStatuses[0]
	record, err := n.b.Client(t).ImageService().Get(n.ctx, "registry.example/some/thing:v1")
	must(t, err)
	if want := "registry.example/some/thing@" + record.Target.Digest.String(); s.Image != "registry.example/some/thing:v1" || s.ImageID != want {
		t.Errorf("the status has image %s and imageID %s, want %s", s.Image, s.ImageID, want)
	}
}
