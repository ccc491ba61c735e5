package pod

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// failed is a failure that began a minute ago and came last a second ago.
func failed(reason, message string, count int) Failure {
	return Failure{Reason: reason, Message: message, Count: count, Since: t0.Add(-time.Minute), At: t0.Add(-time.Second)}
}

// gates writes an explanation in short: what is not passed, and when it is tried again.
func gates(x Explanation) string {
	var all []string
	for _, g := range x.Gates {
		if g.State == GatePassed {
			continue
		}
		text := string(g.Gate)
		if g.Container != "" {
			text += "." + g.Container
		}
		text += " " + string(g.State)
		if g.Next != nil {
			text += " +" + g.Next.Sub(t0).String()
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

// explained is one pod with what its gates have to be.
type explained struct {
	name  string
	facts func() Facts
	gates string // as gates writes them
	says  []string
}

func wish(p *corev1.Pod, o Observed) Facts {
	return Facts{Desired: Desired{Wish: WishRun, Pod: p}, Observed: o}
}

func absent(o Observed) Facts {
	o.Name, o.Namespace, o.UID = "p", "ns", "uid"
	return Facts{Desired: Desired{Wish: WishAbsent}, Observed: o}
}

func (f Facts) with(op Op, fail Failure) Facts {
	f.Observed.Failed[op] = fail
	return f
}

func (f Facts) flying(op Op, step GateName) Facts {
	f.Observed.Running[op] = true
	f.Flights = map[Op]Flight{op: {Step: step, Since: t0.Add(-3 * time.Second)}}
	return f
}

func starting(name string) Op { return Op{Kind: StartContainer, Object: name} }

const nothingRuns = "image.app not reached; create.app not reached; start.app not reached; probes.app not reached; Ready not reached"

var comingPods = []explained{
	{"everything is passed", func() Facts { return wish(testPod("Always", "", "app"), observed(ready, "app#0@s0 running")) },
		"", []string{"ns/p is Ready: every gate is passed."}},
	{"the manifest is refused, and there is no pod", func() Facts {
		return Facts{Namespace: "ns", Name: "p", Refused: []Refusal{{File: "/m/p.yaml", Line: 7, Message: "spec.containers[0].imagee: unknown field"}}}
	}, "source blocked; admission not reached; sandbox not reached; network not reached; volumes not reached; Ready not reached",
		[]string{"ns/p is blocked at source: CannotUseManifest: /m/p.yaml:7: spec.containers[0].imagee: unknown field.", "mend the file"}},
	{"it asks for what is not built", func() Facts {
		f := wish(testPod("Always", "", "app"), observed(nil))
		f.Desired.Unbuilt = &Rejection{Reason: ReasonUnsupported, Message: "spec.hostUsers is not supported on this node"}
		return f
	}, "admission blocked; sandbox not reached; network not reached; volumes not reached; " + nothingRuns,
		[]string{"ns/p is blocked at admission: UnsupportedField: spec.hostUsers is not supported on this node.", "change what the pod asks for"}},
	{"a newer manifest of a pod that runs is refused", func() Facts {
		f := wish(testPod("Always", "", "app"), observed(ready, "app#0@s0 running"))
		f.Refused = []Refusal{{File: "/m/p.yaml", Line: 7, Message: "spec.x: unknown field"}}
		return f
	}, "source blocked", []string{"ns/p is Ready, but by an older manifest", "/m/p.yaml:7: spec.x"}},
	{"an unknown runtime handler", func() Facts {
		f := wish(testPod("Always", "", "app"), observed(nil))
		f.Desired.Rejected = &Rejection{ReasonRuntimeHandler, "spec.runtimeClassName: \"kata\" is no runtime handler of this node"}
		return f
	}, "admission failed; sandbox not reached; network not reached; volumes not reached; " + nothingRuns,
		[]string{"ns/p has failed at admission: UnknownRuntimeHandler: spec.runtimeClassName"}},
	{"an earlier pod of the name", func() Facts {
		f := wish(testPod("Always", "", "app"), observed(nil))
		f.Behind = "old"
		return f
	}, "admission waiting; sandbox not reached; network not reached; volumes not reached; " + nothingRuns,
		[]string{"ns/p waits at admission: NameInUse: an earlier pod of the same name (uid old) has to be gone first."}},
	{"containerd's records are not read", func() Facts {
		f := wish(testPod("Always", "", "app"), observed(nil))
		f.Held = "the daemon has not read containerd's records yet"
		return f
	}, "admission waiting; sandbox not reached; network not reached; volumes not reached; " + nothingRuns, []string{"waits at admission: the daemon has not read"}},
	{"the network is not ready", func() Facts {
		o := observed(nil)
		o.NetworkNotReady = "no configuration in /etc/cni/net.d"
		return wish(testPod("Always", "", "app"), o)
	}, "sandbox waiting; network blocked; " + nothingRuns, []string{"is blocked at network: NetworkNotReady: no configuration in /etc/cni/net.d. To do: set podNetwork.cidrs"}},
	{"the sandbox fails", func() Facts {
		return wish(testPod("Always", "", "app"), observed(nil)).with(Op{Kind: RunSandbox}, failed(ReasonFailedCreatePodSandBox, "run sandbox: no space left", 1))
	}, "sandbox blocked +-500ms; network not reached; " + nothingRuns, []string{"is blocked at sandbox: FailedCreatePodSandBox: run sandbox: no space left. Tried again now."}},
	{"the network of the sandbox fails", func() Facts {
		f := failed(ReasonFailedCreatePodSandBox, "run sandbox: set up network: no plugin", 3)
		f.Network = true
		return wish(testPod("Always", "", "app"), observed(nil)).with(Op{Kind: RunSandbox}, f)
	}, "sandbox waiting; network blocked +1s; " + nothingRuns, []string{"is blocked at network", "no plugin. Tried again in 2s."}},
	{"the sandbox is under way", func() Facts {
		return wish(testPod("Always", "", "app"), observed(nil)).flying(Op{Kind: RunSandbox}, "")
	}, "sandbox waiting; network not reached; " + nothingRuns, []string{"ns/p waits at sandbox: it is being made"}},
	{"a volume's ConfigMap is missing", func() Facts {
		f := failed(ReasonFailedMount, `MountVolume.SetUp failed for volume "c" : configmap "settings" not found`, 1)
		f.Absent = true
		r := wish(testPod("Always", "", "app"), observed(ready)).with(Op{Kind: Prepare}, f)
		r.Observed.Prepared = false
		return r
	}, "volumes blocked; " + nothingRuns, []string{`is blocked at volumes: FailedMount: MountVolume.SetUp failed for volume "c" : configmap "settings" not found. To do: create what is missing`}},
	{"volumes go stale", func() Facts {
		return wish(testPod("Always", "", "app"), observed(ready, "app#0@s0 running")).with(Op{Kind: RefreshVolumes}, failed(ReasonFailedMount, "no space", 2))
	}, "", []string{"is Ready: every gate is passed. But at volumes: FailedMount: no space."}},
	{"an image is being pulled", func() Facts {
		return wish(testPod("Always", "", "app"), observed(ready)).flying(starting("app"), "")
	}, "image.app waiting; create.app not reached; start.app not reached; probes.app not reached; Ready not reached", []string{`waits at image of container "app": it is being pulled`}},
	{"an image cannot be pulled", func() Facts {
		return wish(testPod("Always", "", "app"), observed(ready)).with(starting("app"), failed(ReasonErrImagePull, "reg/app: not found", 2))
	}, "image.app blocked +19s; create.app not reached; start.app not reached; probes.app not reached; Ready not reached",
		[]string{`ns/p is blocked at image of container "app": ErrImagePull: reg/app: not found. Tried again in 20s. To do: mend the image's name`}},
	{"a variable's Secret is missing", func() Facts {
		f := failed(ReasonCreateContainerConfigError, `secret "db" not found`, 1)
		f.Absent = true
		return wish(testPod("Always", "", "app"), observed(ready)).with(starting("app"), f)
	}, "create.app blocked; start.app not reached; probes.app not reached; Ready not reached", []string{`blocked at create of container "app": CreateContainerConfigError: secret "db" not found. To do: create`}},
	{"a pull is tried again", func() Facts {
		return wish(testPod("Always", "", "app"), observed(ready)).with(starting("app"), failed(ReasonErrImagePull, "reg/app: not found", 2)).flying(starting("app"), "")
	}, "image.app blocked +0s; create.app not reached; start.app not reached; probes.app not reached; Ready not reached",
		[]string{"ErrImagePull: reg/app: not found. Tried again now. To do: mend"}},
	{"it is being made", func() Facts {
		return wish(testPod("Always", "", "app"), observed(ready)).flying(starting("app"), GateCreate)
	}, "create.app waiting; start.app not reached; probes.app not reached; Ready not reached", nil},
	{"the start fails", func() Facts {
		return wish(testPod("Always", "", "app"), observed(ready, "app#0@s0 created")).with(starting("app"), failed(ReasonRunContainerError, "exec: no such file", 1))
	}, "start.app blocked +-500ms; probes.app not reached; Ready not reached", []string{"RunContainerError: exec: no such file"}},
	{"an init container is first", func() Facts {
		return wish(testPod("Always", "i0 i1", "app"), observed(ready, "i0#0@s0 exited0", "i1#0@s0 running"))
	}, "start.i1 waiting; probes.i1 not reached; " + nothingRuns, []string{`ns/p waits at start of container "i1": run 0 of this init container goes on, and has to succeed first.`}},
	{"an init container's record is gone", func() Facts { return wish(testPod("Always", "i0", "app"), observed(ready, "app#0@s0 running")) }, "", []string{"is Ready"}},
	{"an init container failed, and for good", func() Facts { return wish(testPod("Never", "i0 i1", "app"), observed(stopped, "i0#0@s0 exited3")) },
		"start.i0 failed; probes.i0 not reached; image.i1 not reached; create.i1 not reached; start.i1 not reached; probes.i1 not reached; " + nothingRuns,
		[]string{`has failed at start of container "i0"`}},
	{"an init container fails", func() Facts {
		f := wish(testPod("Always", "i0", "app"), observed(ready, "i0#0@s0 exited3"))
		f.Observed.Containers[0].Backoff = 10 * time.Second
		return f
	}, "start.i0 blocked +9s; probes.i0 not reached; " + nothingRuns, []string{`is blocked at start of container "i0": CrashLoopBackOff: run 0 ended with exit code 3 (Error). Tried again in 10s.`}},
	{"a crash loop", func() Facts {
		f := wish(testPod("Always", "", "app"), observed(ready, "app#4@s0 exited1"))
		f.Observed.Containers[0].Backoff, f.Observed.Containers[0].Message = 40*time.Second, "cannot open\nthe door"
		return f
	}, "start.app blocked +39s; probes.app not reached; Ready not reached",
		[]string{`CrashLoopBackOff: run 4 ended with exit code 1 (Error): cannot open the door. Tried again in 40s.`, `nodeagent logs --previous ns/p -c app`, `"nodeagent restart ns/p -c app" does not wait`}},
	{"it is not started again", func() Facts { return wish(testPod("Never", "", "app"), observed(stopped, "app#0@s0 exited2")) },
		"start.app failed; probes.app not reached; Ready not reached", []string{`has failed at start of container "app": Error: run 0 ended with exit code 2 (Error).`}},
	{"it has completed", func() Facts { return wish(testPod("Never", "", "app"), observed(stopped, "app#0@s0 exited0")) },
		"Ready not reached", []string{"ns/p has completed"}},
	{"its time is over", func() Facts {
		f := wish(testPod("Always", "", "app"), observed(ready, "app#0@s0 exited9"))
		f.Desired.Pod.Spec.ActiveDeadlineSeconds, f.Observed.Since = new(int64(30)), t0.Add(-time.Minute)
		return f
	}, "Ready failed", []string{"ns/p has failed at Ready: DeadlineExceeded: Pod was active on the node longer"}},
	{"a readiness probe fails", func() Facts {
		f := wish(testPod("Always", "", "app"), observed(ready, "app#0@s0 running"))
		f.Desired.Pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{}
		f.Observed.Containers[0].Hash = ContainerHash(&f.Desired.Pod.Spec.Containers[0])
		f.Answers = []Answer{{Container: "other", Probe: "Readiness", Message: "no"},
			{Container: "app0", Probe: "Readiness", Message: "Readiness probe failed: 503", InRow: 4, Next: new(t0.Add(5 * time.Second))}}
		return f
	}, "probes.app blocked +5s; Ready not reached", []string{`blocked at probes of container "app": Readiness probe failed: 503. Asked again in 6s.`}},
	{"a startup probe has not been asked", func() Facts {
		f := wish(testPod("Always", "", "app"), observed(ready, "app#0@s0 running"))
		f.Desired.Pod.Spec.Containers[0].StartupProbe = &corev1.Probe{}
		return f
	}, "probes.app waiting; Ready not reached", []string{"the startup probe has not succeeded yet"}},
	{"a readiness gate", func() Facts {
		f := wish(testPod("Always", "", "app"), observed(ready, "app#0@s0 running"))
		f.Desired.Pod.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "lb/attached"}}
		f.Told = &corev1.PodStatus{}
		*f.Told = Status(f.Desired, f.Observed, Node{}, corev1.PodStatus{}, t0)
		return f
	}, "Ready blocked", []string{`blocked at Ready: ReadinessGatesNotReady: corresponding condition of pod readiness gate "lb/attached" does not exist.`, "the controller that owns the condition"}},
	{"a postStart hook holds the next one", func() Facts {
		f := wish(testPod("Always", "", "app b"), observed(ready, "app#0@s0 running"))
		f.Desired.Pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{}}
		f.Observed.Containers[0].PostStart = true
		return f
	}, "start.app waiting; probes.app not reached; image.b not reached; create.b not reached; start.b not reached; probes.b not reached; Ready not reached",
		[]string{`waits at start of container "app": its postStart hook runs.`}},
}

var leavingPods = []explained{
	{"a container gets its grace", func() Facts {
		f := absent(observed(ready, "app#0@s0 running"))
		f.Observed.Containers[0].Stop.By = t0.Add(20 * time.Second)
		return f.flying(Op{Kind: StopContainer, Object: "app0"}, "")
	}, "stop.app waiting +20s; network not reached; remove not reached; volumes not reached; gone not reached",
		[]string{`ns/p waits at stop of container "app"`, "At the latest in 21s."}},
	{"a pull is under way", func() Facts { return absent(observed(ready)).flying(starting("app"), "") },
		"stop waiting; network not reached; volumes not reached; gone not reached", []string{"(StartContainer) has to come to its end"}},
	{"the network does not go", func() Facts {
		return absent(observed(ready, "app#0@s0 exited0")).with(Op{Kind: StopSandbox, Object: "s0"}, failed("FailedStopPodSandBox", "no plugin", 1))
	}, "network blocked +-500ms; remove not reached; volumes not reached; gone not reached", []string{"ns/p is blocked at network: FailedStopPodSandBox: no plugin."}},
	{"a mount is busy", func() Facts {
		return absent(observed(stopped)).with(Op{Kind: Cleanup}, failed("FailedCleanup", "unmount /x: it is in use by pid 4711 (bash)", 5))
	}, "volumes blocked +7s; gone not reached", []string{"ns/p is blocked at volumes: FailedCleanup: unmount /x: it is in use by pid 4711 (bash). Tried again in 8s. To do: end what the error names"}},
	{"the daemon is dead", func() Facts {
		f := absent(observed(lost))
		f.Dead, f.Mounts = true, []string{"/x/y"}
		return f
	}, "volumes waiting; gone not reached", []string{"still mounted: /x/y", "The daemon does not answer"}},
}

var deadPods = []explained{
	{"nothing was begun", func() Facts {
		f := wish(testPod("Always", "", "app"), Observed{})
		f.Dead = true
		return f
	}, "sandbox waiting; network not reached; volumes waiting; " + nothingRuns, []string{"ns/p waits at sandbox: nothing is done while the daemon does not answer. The daemon does not answer, so nothing is tried: see"}},
	{"the image is not there", func() Facts {
		f := wish(testPod("Always", "", "a app"), Observed{})
		f.Observed.Sandboxes, f.Observed.Containers = ready, []Container{run("a#0@s0 running")}
		f.Dead, f.Images = true, map[string]bool{"app": false}
		return f
	}, "image.app waiting; create.app not reached; start.app not reached; probes.app not reached; Ready not reached", []string{"the image is not on the node"}},
	{"a ConfigMap is missing", func() Facts {
		f := wish(testPod("Always", "", "app"), Observed{})
		f.Desired.Pod.Spec.Volumes = []corev1.Volume{
			{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}},
			{Name: "w", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "may", Optional: new(true)}}},
		}
		f.Observed.Sandboxes = ready
		f.Dead, f.Lacks = true, map[ObjectRef]bool{
			{Kind: ConfigMapKind, Namespace: "ns", Name: "settings"}: true, {Kind: SecretKind, Namespace: "ns", Name: "may"}: true,
		}
		return f
	}, "volumes blocked; " + nothingRuns, []string{`FailedMount: configmap "settings" not found. To do`}},
	{"nobody knows whether it is wanted", func() Facts {
		f := absent(observed(ready, "app#0@s0 running", "b#1@s0 exited3"))
		f.Dead, f.Unsure = true, true
		return f
	}, "source waiting; start.b not reached", []string{"ns/p waits at source: no manifest asks for it; whether the API server does, only the daemon finds out. The daemon does not answer"}},
	{"it runs on", func() Facts {
		f := wish(testPod("Always", "", "app"), Observed{})
		f.Observed.Sandboxes, f.Observed.Containers = ready, []Container{run("app#0@s0 running")}
		f.Dead = true
		return f
	}, "", []string{"is Ready"}},
}

func TestExplain(t *testing.T) {
	for _, list := range [][]explained{comingPods, leavingPods, deadPods} {
		for _, tt := range list {
			t.Run(tt.name, func(t *testing.T) {
				x := Explain(tt.facts(), t0)
				if got := gates(x); got != tt.gates {
					t.Errorf("what is not passed:\n got %s\nwant %s", got, tt.gates)
				}
				for _, part := range tt.says {
					if !strings.Contains(x.Summary, part) {
						t.Errorf("the summary is %q, want %q in it", x.Summary, part)
					}
				}
				if strings.Contains(x.Summary, "\n") || !strings.HasPrefix(x.Summary, "ns/p") {
					t.Errorf("the summary is %q", x.Summary)
				}
			})
		}
	}
}

// TestExplainHanging: an operation of the runtime that takes much longer than any is
// told as one in which something hangs, whichever it is; a pull may take long.
func TestExplainHanging(t *testing.T) {
	sandbox := wish(testPod("Always", "", "app"), observed(nil))
	start := wish(testPod("Always", "", "app"), observed(ready))
	leaves := func() Facts {
		f := wish(testPod("Always", "", "app"), observed(ready, "app#0@s0 running"))
		f.Desired.Wish = WishAbsent
		return f
	}
	told := leaves()
	told.Observed.Containers[0].Stop.By = t0.Add(-20 * time.Second)
	within := leaves()
	within.Observed.Containers[0].Stop.By = t0.Add(20 * time.Second)
	for name, c := range map[string]struct {
		f     Facts
		op    Op
		step  GateName
		hangs bool
	}{
		"sandbox":      {sandbox, Op{Kind: RunSandbox}, "", true},
		"start":        {start, starting("app"), GateStart, true},
		"pull":         {start, starting("app"), "", false},
		"stop":         {leaves(), Op{Kind: StopContainer, Object: told.Observed.Containers[0].ID}, "", true},
		"after grace":  {told, Op{Kind: StopContainer, Object: told.Observed.Containers[0].ID}, "", true},
		"within grace": {within, Op{Kind: StopContainer, Object: told.Observed.Containers[0].ID}, "", false},
	} {
		for _, after := range []time.Duration{long - time.Second, long + 10*time.Second} {
			c.f.Observed.Running = map[Op]bool{c.op: true}
			c.f.Flights = map[Op]Flight{c.op: {Step: c.step, Since: t0.Add(-after)}}
			b := Explain(c.f, t0).Blocks
			if b == nil {
				t.Fatalf("%s: nothing blocks after %s", name, after)
			}
			late := after > long || name == "after grace"
			if got := b.State == GateBlocked && b.Do == adviceHangs; got != (c.hangs && late) {
				t.Errorf("%s after %s: %+v", name, after, b)
			}
		}
	}
}

// TestExplainSince: a gate tells since when it fails, its last error in full, and how
// often in a row.
func TestExplainSince(t *testing.T) {
	long := strings.Repeat("x", 5000)
	f := wish(testPod("Always", "", "app"), observed(ready)).with(starting("app"), failed(ReasonErrImagePull, long, 3))
	x := Explain(f, t0)
	if b := x.Blocks; b == nil || b.LastError != long || b.Failures != 3 || b.Since == nil || !b.Since.Equal(t0.Add(-time.Minute)) || len(x.Summary) > 800 {
		t.Errorf("what blocks is %+v, the summary has %d bytes", x.Blocks, len(x.Summary))
	}
	f = wish(testPod("Always", "", "app"), observed(ready)).flying(starting("app"), GateCreate)
	if b := Explain(f, t0).Blocks; b == nil || b.Since == nil || !b.Since.Equal(t0.Add(-3*time.Second)) {
		t.Errorf("an operation under way is %+v", b)
	}
	f = wish(testPod("Always", "", "app"), observed(ready, "app#0@s0 running"))
	at := metav1.NewTime(t0.Add(-time.Hour))
	f.Told = &corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: at}}}
	all := Explain(f, t0).Gates
	if last := all[len(all)-1]; last.Since == nil || !last.Since.Equal(at.Time) {
		t.Errorf("Ready is %+v", last)
	}
}

// TestExplainChangesNothing: what it is given belongs to the worker.
func TestExplainChangesNothing(t *testing.T) {
	for _, list := range [][]explained{comingPods, leavingPods, deadPods} {
		for _, tt := range list {
			f := tt.facts()
			before := fmt.Sprintf("%#v %#v", f.Observed.RuntimeState, f.Observed.Failed)
			running := maps.Clone(f.Observed.Running)
			x := Explain(f, t0)
			if after := fmt.Sprintf("%#v %#v", f.Observed.RuntimeState, f.Observed.Failed); after != before || !maps.Equal(running, f.Observed.Running) {
				t.Errorf("%s: Explain changed\n%s to\n%s", tt.name, before, after)
			}
			if _, err := json.Marshal(x); err != nil || x.Gates == nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
	}
}
