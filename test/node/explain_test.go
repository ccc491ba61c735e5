package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
	"nodeagent/test/bed"
)

// explanation is what is read of the document.
type explanation struct {
	Source  string
	Summary string
	Blocks  *pod.Gate
	Gates   []pod.Gate
	Earlier *pod.Explanation
}

func (c *cli) explain(t *testing.T, name string) explanation {
	t.Helper()
	var x explanation
	c.want(t, 0, "explain", "pod", name, "-o", "json").document(t, "PodExplanation", &x)
	return x
}

// troubles are pods that do not become Ready, each held by another gate.
func troubles() map[string]string {
	sleeps := "command: [/podtool, sleep, forever]\n"
	return map[string]string{
		"fine":    spec("", sleeps),
		"kata":    spec("runtimeClassName: kata", sleeps),
		"image":   spec("", "image: 127.0.0.1:1/app:v1\nimagePullPolicy: Always"),
		"env":     spec("", sleeps+"envFrom: [{configMapRef: {name: later}}]"),
		"volume":  spec("volumes: [{name: v, configMap: {name: later}}]", sleeps+"volumeMounts: [{name: v, mountPath: /v}]"),
		"unready": spec("", sleeps+`readinessProbe: {exec: {command: [/podtool, seq, stderr, "\e[31mno\u202e", ";", exit, "1"]}, periodSeconds: 1}`),
		"gate":    spec("readinessGates: [{conditionType: example.org/lb}]", sleeps),
		"hang":    spec("volumes: [{name: v, emptyDir: {medium: Memory}}]", sleeps+"volumeMounts: [{name: v, mountPath: /v}]"),
	}
}

// endsAtOnce is a pod that ends at once. When it is first held back, that lasts for 10 s.
const endsAtOnce = `command: [/podtool, exit, "3"]`

// TestExplainPod: of each pod that is not Ready, or does not go, the first line names
// the gate that holds it, with the daemon alive and dead.
func TestExplainPod(t *testing.T) {
	ctx, b, a := newNode(t, bed.Options{}, bed.AgentOptions{})
	n, c := &rowsNode{ctx: ctx, b: b, a: a}, newCLI(t, ctx, b, a)
	for name, spec := range troubles() {
		n.write(t, name, spec)
	}
	must(t, a.WriteManifest("typo", "apiVersion: v1\nkind: Pod\nmetadata:\n  name: other\nspec:\n  containers:\n  - imagee: x\n"))
	p := n.pod(t, "hang", "running", inPhase(corev1.PodRunning))
	held := n.hold(t, filepath.Join(n.volume(p, "empty-dir", "v"), "held"))
	n.pod(t, "image", "without its image", waitingFor("RegistryUnavailable", "ErrImagePull", "ImagePullBackOff"))
	n.pod(t, "env", "without its object", waitingFor("CreateContainerConfigError"))
	n.pod(t, "volume", "without its volume", func(p *corev1.Pod) bool { return p.Status.Reason == "FailedMount" })
	n.pod(t, "gate", "running", func(p *corev1.Pod) bool { return app(p).Ready })
	n.pod(t, "fine", "Ready", isReady)
	n.logged(t, "unready", "Readiness probe failed")
	must(t, a.RemoveManifest("hang"))
	n.logged(t, "hang", "FailedCleanup")
	n.write(t, "crash", spec("", endsAtOnce))
	n.pod(t, "crash", "held back", waitingFor("CrashLoopBackOff"))
	t.Run("alive", func(t *testing.T) { c.explainAlive(t) })
	must(t, a.RemoveManifest("crash"))

	n.write(t, "hang", spec("", "command: [/podtool, sleep, forever]"))
	t.Run("behind", func(t *testing.T) { c.explainBehind(t, n) })
	must(t, a.WaitGone(ctx, "default/crash-node"))
	n.write(t, "loop", spec("", endsAtOnce))
	n.pod(t, "loop", "held back", waitingFor("CrashLoopBackOff"))
	must(t, a.Kill())
	must(t, b.Collect(ctx)) // it may have been removing a container that had crashed
	before, err := b.Snapshot(ctx)
	must(t, err)
	t.Run("dead", func(t *testing.T) { c.explainDead(t) })
	must(t, b.WaitSame(ctx, before)) // looking changes nothing
	must(t, held.Close())
	must(t, a.RemoveManifest("typo")) // as long as it is there, nothing is ended for being absent
	must(t, a.Start(ctx))
	n.pod(t, "hang", "running again", inPhase(corev1.PodRunning))
	must(t, a.RemoveManifests())
	waitGone(t, ctx, a)
}

// hold keeps a file of the node open, as somebody's shell would, until it is closed.
func (n *rowsNode) hold(t *testing.T, path string) (f *os.File) {
	t.Helper()
	must(t, n.b.Do(func() (err error) { f, err = os.Create(path); return err }))
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// blocked is where a pod has to be held and what has to be said.
type blocked struct {
	gate      pod.GateName
	container string
	state     pod.GateState
	says      []string
	next      bool // it says when it is tried again
}

func (c *cli) blockedAt(t *testing.T, source string, all map[string]blocked) {
	t.Helper()
	for name, want := range all {
		x := c.explain(t, name)
		g := x.Blocks
		if x.Source != source || g == nil || g.Gate != want.gate || g.Container != want.container || g.State != want.state || want.next && g.Next == nil {
			t.Errorf("of %s the %s says %q, it is blocked by %+v, want %+v", name, x.Source, x.Summary, g, want)
		}
		for _, part := range want.says {
			if !strings.Contains(x.Summary, part) {
				t.Errorf("of %s it says %q, want %q in it", name, x.Summary, part)
			}
		}
		table := c.want(t, 0, "explain", "pod", name)
		if first, _, _ := strings.Cut(table.out, "\n"); !strings.Contains(first, string(want.gate)) || strings.ContainsAny(table.out, "\x1b\u202e") {
			t.Errorf("of %s the page is\n%s", name, table.out)
		}
	}
}

func (c *cli) explainAlive(t *testing.T) {
	c.blockedAt(t, "daemon", map[string]blocked{ // before its next start
		"crash": {gate: pod.GateStart, container: "app", state: pod.GateBlocked, next: true, says: []string{"CrashLoopBackOff: run", "exit code 3", "nodeagent logs --previous default/crash-node -c app"}},
	})
	c.blockedAt(t, "daemon", map[string]blocked{
		"typo":  {gate: pod.GateSource, state: pod.GateBlocked, says: []string{"typo.yaml:7: spec.containers[0].imagee: unknown field", "mend the file"}},
		"other": {gate: pod.GateSource, state: pod.GateBlocked, says: []string{"typo.yaml:7"}},
		"kata":  {gate: pod.GateAdmission, state: pod.GateFailed, says: []string{"UnknownRuntimeHandler: spec.runtimeClassName: \"kata\""}},
		"image": {gate: pod.GateImage, container: "app", state: pod.GateBlocked, next: true, says: []string{"RegistryUnavailable: image pull failed for 127.0.0.1:1/app:v1", "Tried again"}},
		"env":   {gate: pod.GateCreate, container: "app", state: pod.GateBlocked, says: []string{`CreateContainerConfigError: configmap "later" not found`, "as soon as it is there"}},
		"volume": {gate: pod.GateVolumes, state: pod.GateBlocked, says: []string{
			`FailedMount: MountVolume.SetUp failed for volume "v" : configmap "later" not found`}},
		"unready": {gate: pod.GateProbes, container: "app", state: pod.GateBlocked, says: []string{`Readiness probe failed: \x1b[31mno\u202e`}},
		"gate":    {gate: pod.GateReady, state: pod.GateBlocked, says: []string{`readiness gate "example.org/lb" does not exist`, "spec.readinessGates"}},
		"hang":    {gate: pod.GateVolumes, state: pod.GateBlocked, next: true, says: []string{"FailedCleanup", "it is in use"}},
	})
	x := c.explain(t, "fine")
	if x.Blocks != nil || len(x.Gates) != 10 || !strings.Contains(x.Summary, "default/fine-node is Ready") || x.Gates[9].Since == nil {
		t.Errorf("of a pod that is Ready it says %+v", x)
	}
	if o := c.want(t, 0, "explain", "pod", "fine"); !strings.Contains(o.out, "GATE ") || !strings.Contains(o.out, "Ready ") {
		t.Errorf("the page is\n%s", o.out)
	}
	c.want(t, 6, "explain", "pod", "nothing")
	c.want(t, 2, "explain", "pod")
	c.want(t, 2, "explain", "pod", "fine", "-o", "wide")
	if o := c.want(t, 0, "explain", "pod", "--help"); !strings.Contains(o.out, "nodeagent explain pod web") {
		t.Errorf("the help is\n%s", o.out)
	}
}

// explainBehind: a pod whose name another one still has, which hangs.
func (c *cli) explainBehind(t *testing.T, n *rowsNode) {
	awaited := func() string {
		raw, err := n.a.Get(n.ctx, "/v1/awaited")
		must(t, err)
		return string(raw)
	}
	for !strings.Contains(awaited(), "hang-node") && n.ctx.Err() == nil {
		bed.Pause(n.ctx, 10*time.Millisecond)
	}
	x := c.explain(t, "hang")
	if x.Blocks == nil || x.Blocks.Gate != pod.GateAdmission || x.Earlier == nil || x.Earlier.Blocks == nil || x.Earlier.Blocks.Gate != pod.GateVolumes {
		t.Errorf("of a pod behind another it says %q, of the other %+v", x.Summary, x.Earlier)
	}
	if o := c.want(t, 0, "explain", "pod", "hang"); !strings.Contains(o.out, "waits at admission") || !strings.Contains(o.out, "The earlier pod (uid ") {
		t.Errorf("the page is\n%s", o.out)
	}
}

func (c *cli) explainDead(t *testing.T) {
	dead := "The daemon does not answer"
	c.blockedAt(t, "runtime", map[string]blocked{
		"typo":    {gate: pod.GateSource, state: pod.GateBlocked, says: []string{"typo.yaml:7: spec.containers[0].imagee: unknown field", dead}},
		"kata":    {gate: pod.GateAdmission, state: pod.GateFailed, says: []string{"UnknownRuntimeHandler", dead}},
		"image":   {gate: pod.GateImage, container: "app", state: pod.GateWaiting, says: []string{"the image is not on the node", dead}},
		"env":     {gate: pod.GateCreate, container: "app", state: pod.GateBlocked, says: []string{`configmap "later" not found`, dead}},
		"volume":  {gate: pod.GateVolumes, state: pod.GateBlocked, says: []string{`configmap "later" not found`, dead}},
		"loop":    {gate: pod.GateStart, container: "app", state: pod.GateBlocked, next: true, says: []string{"CrashLoopBackOff: run", "exit code 3", dead}},
		"unready": {gate: pod.GateProbes, container: "app", state: pod.GateWaiting, says: []string{"readiness probe had not succeeded", dead}},
		"gate":    {gate: pod.GateReady, state: pod.GateBlocked, says: []string{"readiness gate", dead}},
		"hang":    {gate: pod.GateAdmission, state: pod.GateWaiting, says: []string{"an earlier pod of the same name", dead}},
	})
	x := c.explain(t, "hang")
	if x.Earlier == nil || x.Earlier.Blocks == nil || x.Earlier.Blocks.Gate != pod.GateVolumes || !strings.Contains(x.Earlier.Summary, "still mounted: ") {
		t.Errorf("of the pod before it says %+v", x.Earlier)
	}
	if x := c.explain(t, "fine"); x.Blocks != nil || !strings.Contains(x.Summary, "is Ready") {
		t.Errorf("of a pod that is Ready it says %+v", x)
	}
	if o := c.want(t, 0, "explain", "pod", "fine"); !strings.Contains(o.err, "the daemon does not answer") {
		t.Errorf("it does not say that the daemon is dead: %q", o.err)
	}
}
