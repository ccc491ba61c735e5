package pod

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// testPod has the init containers and containers of the names given, each with
// the image of its name. Init containers whose names begin with "side" are sidecars.
func testPod(policy corev1.RestartPolicy, inits, apps string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "uid"}}
	p.Spec.RestartPolicy = policy
	p.Spec.TerminationGracePeriodSeconds = new(int64(30))
	for _, n := range strings.Fields(inits) {
		c := corev1.Container{Name: n, Image: n}
		if strings.HasPrefix(n, "side") {
			c.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		}
		p.Spec.InitContainers = append(p.Spec.InitContainers, c)
	}
	for _, n := range strings.Fields(apps) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: n, Image: n})
	}
	return p
}

// run makes a container from "name#attempt@sandbox state[code]", for example
// "app#1@s0 exited7" or "app#0@s0 running".
func run(text string) Container {
	var c Container
	who, state, _ := strings.Cut(text, " ")
	name, rest, _ := strings.Cut(who, "#")
	attempt, sandbox, _ := strings.Cut(rest, "@")
	fmt.Sscan(attempt, &c.Attempt)
	c.ID, c.Name, c.SandboxID = name+attempt, name, sandbox
	if place, ok := strings.CutPrefix(name, "side"); ok {
		fmt.Sscan(place, &c.Sidecar)
	}
	c.Init = c.Sidecar > 0 || strings.HasPrefix(name, "i")
	c.Hash = ContainerHash(&corev1.Container{Name: name, Image: name})
	c.Created, c.Started = t0.Add(-time.Minute), t0.Add(-time.Minute)
	switch {
	case state == "running":
		c.State = ContainerRunning
	case state == "created":
		c.State = ContainerCreated
	case strings.HasPrefix(state, "exited"):
		c.State, c.Finished = ContainerExited, t0.Add(-time.Second)
		fmt.Sscan(strings.TrimPrefix(state, "exited"), &c.ExitCode)
	default:
		panic("no state in " + text)
	}
	return c
}

func observed(sandboxes []Sandbox, runs ...string) Observed {
	o := Observed{Prepared: true, Dirty: true, Running: map[Op]bool{}, Failed: map[Op]Failure{}}
	o.Sandboxes = sandboxes
	for _, r := range runs {
		o.Containers = append(o.Containers, run(r))
	}
	return o
}

var (
	ready   = []Sandbox{{ID: "s0", State: SandboxReady, Grace: 30}}
	lost    = []Sandbox{{ID: "s0", State: SandboxNotReady, Reason: "NetworkLost"}}
	stopped = []Sandbox{{ID: "s0", State: SandboxNotReady, Stopped: true}}

	rebooted = []Sandbox{{ID: "s0", State: SandboxNotReady, Stopped: true, Reason: "Rebooted"}, {ID: "s1", Attempt: 1, State: SandboxReady}}
)

func show(s Steps) string {
	var all []string
	for _, a := range s.Actions {
		text := string(a.Kind)
		switch a.Kind {
		case StartContainer:
			text += fmt.Sprintf(" %s#%d@%s", a.Name, a.Attempt, a.Sandbox)
			if a.Backoff > 0 {
				text += " backoff " + a.Backoff.String()
			}
		case StopContainer, PreStop, ShortenStop:
			text += " " + a.Container + " " + a.Grace.String()
			if a.Again {
				text += " again"
			}
		case RemoveContainer:
			text += " " + a.Container
			if a.Backoff > 0 {
				text += " backoff " + a.Backoff.String()
			}
		case PostStart:
			text += " " + a.Container
		case StopSandbox, RemoveSandbox:
			text += " " + a.Sandbox
		case RunSandbox:
			text += fmt.Sprintf(" #%d", a.Attempt)
		}
		all = append(all, text)
	}
	if !s.WakeAt.IsZero() {
		all = append(all, "wake "+s.WakeAt.Sub(t0).String())
	}
	if s.Done {
		all = append(all, "done")
	}
	return strings.Join(all, "; ")
}

func TestPlan(t *testing.T) {
	absent := func(o Observed) (Desired, Observed) { return Desired{Wish: WishAbsent}, o }
	want := func(p *corev1.Pod, o Observed) (Desired, Observed) { return Desired{Wish: WishRun, Pod: p}, o }
	backoff := func(after time.Duration, backoff time.Duration) func(*Desired, *Observed) {
		return func(_ *Desired, o *Observed) {
			o.Containers[0].Started, o.Containers[0].Finished = t0.Add(-after-time.Second), t0.Add(-after)
			o.Containers[0].Backoff = backoff
		}
	}
	unknown := func(f func(*Desired, *Observed)) func(*Desired, *Observed) {
		return func(d *Desired, o *Observed) { f(d, o); o.Containers[0].Reason = ReasonContainerStatusUnknown }
	}
	unhealthy := func(grace *int64) func(*Desired, *Observed) {
		return func(_ *Desired, o *Observed) { o.Health = map[string]Health{"a0": {Unhealthy: "why", Grace: grace}} }
	}
	stale := func(_ *Desired, o *Observed) { o.Stale = true }
	for _, c := range []struct {
		name string
		d    Desired
		o    Observed
		want string
	}{
		pair("a new pod is prepared while its sandbox is made")(with(want(testPod(always, "", "app"), observed(nil)))(func(_ *Desired, o *Observed) { o.Prepared = false }))("Prepare; RunSandbox #0"),
		pair("an adopted pod is made sure of before anything starts")(with(want(testPod(always, "", "app"), observed(ready)))(func(_ *Desired, o *Observed) { o.Prepared = false }))("Prepare"),
		pair("volumes that show objects as they were are brought up to date beside everything else")(with(want(testPod(always, "", "a b"), observed(ready, "a#0@s0 running")))(stale))("RefreshVolumes; StartContainer b#0@s0"),
		pair("once at a time")(with(want(testPod(always, "", "a"), observed(ready, "a#0@s0 running")))(func(d *Desired, o *Observed) { stale(d, o); o.Running[Op{Kind: RefreshVolumes}] = true }))(""),
		pair("and not after the pod's end has begun")(with(absent(observed(stopped)))(func(d *Desired, o *Observed) { stale(d, o); o.Running[Op{Kind: RefreshVolumes}] = true }))(""),
		pair("init containers run one after another")(want(testPod(always, "i1 i2", "app"), observed(ready)))("StartContainer i1#0@s0"),
		pair("the second follows the first")(want(testPod(always, "i1 i2", "app"), observed(ready, "i1#0@s0 exited0")))("StartContainer i2#0@s0"),
		pair("a running init container holds the rest")(want(testPod(always, "i1", "app"), observed(ready, "i1#0@s0 running")))(""),
		pair("containers start side by side")(want(testPod(always, "i1", "a b"), observed(ready, "i1#0@s0 exited0")))("StartContainer a#0@s0; StartContainer b#0@s0"),
		pair("init containers are through once a container was started")(want(testPod(always, "i1", "a b"), observed(ready, "a#0@s0 running")))("StartContainer b#0@s0"),
		pair("a failed init container is tried again")(want(testPod(always, "i1", "a"), observed(ready, "i1#0@s0 exited3")))("StartContainer i1#1@s0 backoff 10s"),
		pair("but not in a pod that never restarts")(want(testPod(never, "i1", "a"), observed(ready, "i1#0@s0 exited3")))("StopSandbox s0"),
		pair("the first restart is immediate")(want(testPod(always, "", "a"), observed(ready, "a#0@s0 exited1")))("StartContainer a#1@s0 backoff 10s"),
		pair("the second waits 10 s after the end")(with(want(testPod(always, "", "a"), observed(ready, "a#1@s0 exited1")))(backoff(time.Second, 10*time.Second)))("wake 9s"),
		pair("and then starts, with 20 s to follow")(with(want(testPod(always, "", "a"), observed(ready, "a#1@s0 exited1")))(backoff(10*time.Second, 10*time.Second)))("StartContainer a#2@s0 backoff 20s"),
		pair("back-off ends at 300 s")(with(want(testPod(always, "", "a"), observed(ready, "a#9@s0 exited1")))(backoff(300*time.Second, 300*time.Second)))("StartContainer a#10@s0 backoff 5m0s"),
		pair("a run of 600 s starts the series anew")(with(want(testPod(always, "", "a"), observed(ready, "a#9@s0 exited1")))(func(_ *Desired, o *Observed) {
			o.Containers[0].Backoff, o.Containers[0].Started = 300*time.Second, t0.Add(-601*time.Second)
		}))("StartContainer a#10@s0 backoff 10s"),
		pair("a clock set back does not stretch the back-off")(with(want(testPod(always, "", "a"), observed(ready, "a#1@s0 exited1")))(backoff(-time.Hour, 10*time.Second)))("wake 10s"),
		pair("a run that a reboot ended costs no back-off")(with(want(testPod(always, "", "a"), observed(rebooted, "a#1@s0 exited137")))(unknown(backoff(time.Second, 10*time.Second))))("StartContainer a#2@s1 backoff 10s"),
		pair("but one that ended unseen in a good sandbox does")(with(want(testPod(always, "", "a"), observed(ready, "a#1@s0 exited137")))(unknown(backoff(time.Second, 10*time.Second))))("wake 9s"),
		pair("success ends an OnFailure pod")(want(testPod(onFailure, "", "a"), observed(ready, "a#0@s0 exited0")))("StopSandbox s0"),
		pair("an ended pod gives its cgroup back")(want(testPod(onFailure, "", "a"), observed(stopped, "a#0@s0 exited0")))("ReleaseCgroup"),
		pair("one of two may go on")(want(testPod(onFailure, "", "a b"), observed(ready, "a#0@s0 exited0", "b#0@s0 running")))(""),
		pair("Never is not run again, not even after a lost sandbox")(want(testPod(never, "", "a"), observed(lost, "a#0@s0 exited7")))("StopSandbox s0"),
		pair("a changed image replaces the container")(with(want(testPod(always, "", "a"), observed(ready, "a#0@s0 running")))(func(d *Desired, _ *Observed) { d.Pod.Spec.Containers[0].Image = "new" }))("StopContainer a0 30s"),
		pair("even in a pod that never restarts")(with(want(testPod(never, "", "a"), observed(ready, "a#0@s0 exited143")))(func(d *Desired, _ *Observed) { d.Pod.Spec.Containers[0].Image = "new" }))("StartContainer a#1@s0"),
		pair("a lost sandbox ends its containers first")(want(testPod(always, "", "a"), observed(lost, "a#0@s0 running")))("StopContainer a0 30s"),
		pair("then is released")(want(testPod(always, "", "a"), observed(lost, "a#0@s0 exited137")))("StopSandbox s0"),
		pair("then replaced")(want(testPod(always, "", "a"), observed(stopped, "a#0@s0 exited137")))("RunSandbox #1"),
		pair("a run that a probe wants ended is stopped")(with(want(testPod(always, "", "a"), observed(ready, "a#0@s0 running")))(unhealthy(nil)))("StopContainer a0 30s"),
		pair("with the probe's own grace")(with(want(testPod(always, "", "a"), observed(ready, "a#0@s0 running")))(unhealthy(new(int64(5)))))("StopContainer a0 5s"),
		pair("of at least 2 s")(with(want(testPod(always, "", "a"), observed(ready, "a#0@s0 running")))(unhealthy(new(int64(0)))))("StopContainer a0 2s"),
		pair("a verdict on an earlier run counts no more")(with(want(testPod(always, "", "a"), observed(ready, "a#0@s0 exited137", "a#1@s0 running")))(unhealthy(nil)))(""),
		pair("a created container whose daemon died is removed")(want(testPod(always, "", "a"), observed(ready, "a#0@s0 created")))("RemoveContainer a0"),
		pair("of dead runs one is kept")(want(testPod(always, "", "a"), observed(ready, "a#0@s0 exited1", "a#1@s0 exited1", "a#2@s0 running")))("RemoveContainer a0"),
		pair("no network, no sandbox")(with(want(testPod(always, "", "a"), observed(nil)))(func(_ *Desired, o *Observed) { o.NetworkNotReady = "why" }))(""),
		pair("unless the pod is on the host's")(with(want(testPod(always, "", "a"), observed(nil)))(func(d *Desired, o *Observed) { o.NetworkNotReady = "why"; d.Pod.Spec.HostNetwork = true }))("RunSandbox #0"),
		pair("what runs is not started twice")(with(want(testPod(always, "", "a"), observed(ready)))(func(_ *Desired, o *Observed) { o.Running[Op{Kind: StartContainer, Object: "a"}] = true }))(""),
		pair("a pull that failed waits 10 s")(with(want(testPod(always, "", "a"), observed(ready)))(func(_ *Desired, o *Observed) {
			o.Failed[Op{Kind: StartContainer, Object: "a"}] = Failure{Reason: ReasonErrImagePull, Count: 1, At: t0}
		}))("wake 10s"),
		pair("a rejected pod starts nothing")(with(want(testPod(always, "", "a"), observed(nil)))(func(d *Desired, o *Observed) { d.Rejected, o.Dirty = &Rejection{Reason: "No"}, false }))(""),
		pair("an absent pod is stopped with the grace of its record")(absent(observed([]Sandbox{{ID: "s0", State: SandboxReady, Grace: 7}}, "a#0@s0 running")))("StopContainer a0 7s"),
		pair("with at least 2 s")(with(absent(observed(ready, "a#0@s0 running")))(func(d *Desired, _ *Observed) { d.Grace = new(int64(0)) }))("StopContainer a0 2s"),
		pair("then its records and its network go")(absent(observed(ready, "a#0@s0 exited0")))("RemoveContainer a0; StopSandbox s0"),
		pair("then cgroup and directories")(absent(observed(stopped)))("Cleanup"),
		pair("the sandbox's record goes last")(with(absent(observed(stopped)))(func(_ *Desired, o *Observed) { o.Dirty = false }))("RemoveSandbox s0"),
		pair("and then nothing is left")(with(absent(observed(nil)))(func(_ *Desired, o *Observed) { o.Dirty = false }))("done"),
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := show(Plan(c.d, c.o, t0)); got != c.want {
				t.Errorf("plan:\n got %s\nwant %s", got, c.want)
			}
		})
	}
}

type planCase = struct {
	name string
	d    Desired
	o    Observed
	want string
}

// pair, with: read a case from left to right: name, situation, plan.
func pair(name string) func(Desired, Observed) func(string) planCase {
	return func(d Desired, o Observed) func(string) planCase {
		return func(want string) planCase { return planCase{name, d, o, want} }
	}
}

func with(d Desired, o Observed) func(func(*Desired, *Observed)) (Desired, Observed) {
	return func(change func(*Desired, *Observed)) (Desired, Observed) {
		change(&d, &o)
		return d, o
	}
}
