package pod

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// brief writes a status on one line: phase, containers, ready condition.
func brief(s corev1.PodStatus) string {
	var all []string
	for _, c := range append(s.InitContainerStatuses, s.ContainerStatuses...) {
		text := fmt.Sprintf("%s#%d ", c.Name, c.RestartCount)
		switch {
		case c.State.Running != nil:
			text += "running"
		case c.State.Terminated != nil:
			text += fmt.Sprintf("ended %d %s", c.State.Terminated.ExitCode, c.State.Terminated.Reason)
		case c.State.Waiting != nil:
			text += "waits " + c.State.Waiting.Reason
		}
		if last := c.LastTerminationState.Terminated; last != nil {
			text += fmt.Sprintf(" after %d %s", last.ExitCode, last.Reason)
		}
		all = append(all, text)
	}
	ready := "not ready"
	for _, c := range s.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			ready = "ready"
		}
	}
	text := fmt.Sprintf("%s, %s: %s", s.Phase, ready, strings.Join(all, ", "))
	if s.Reason != "" {
		text += " [" + s.Reason + "]"
	}
	return text
}

// probedPod has a container with a probe of each kind.
func probedPod() *corev1.Pod {
	p := testPod(corev1.RestartPolicyAlways, "", "a")
	c := &p.Spec.Containers[0]
	c.StartupProbe, c.ReadinessProbe, c.LivenessProbe = &corev1.Probe{}, &corev1.Probe{}, &corev1.Probe{}
	return p
}

// healthy gives the first container of all a verdict.
func healthy(h Health) func(*Desired, *Observed) {
	return func(_ *Desired, o *Observed) { o.Health = map[string]Health{o.Containers[0].ID: h} }
}

func TestStatus(t *testing.T) {
	failed := func(kind ActionKind, object, reason string, count int) func(*Desired, *Observed) {
		return func(_ *Desired, o *Observed) {
			o.Failed[Op{Kind: kind, Object: object}] = Failure{Reason: reason, Count: count, At: t0}
		}
	}
	backoff := func(_ *Desired, o *Observed) { o.Containers[len(o.Containers)-1].Backoff = 10 * time.Second }
	for _, c := range []struct {
		name   string
		pod    *corev1.Pod
		o      Observed
		change func(*Desired, *Observed)
		want   string
	}{
		{"before anything", testPod(always, "i", "a"), observed(nil), nil,
			"Pending, not ready: i#0 waits PodInitializing, a#0 waits PodInitializing"},
		{"no sandbox", testPod(always, "", "a"), observed(nil), failed(RunSandbox, "", ReasonFailedCreatePodSandBox, 1),
			"Pending, not ready: a#0 waits ContainerCreating [FailedCreatePodSandBox]"},
		{"no network", testPod(always, "", "a"), observed(nil), func(_ *Desired, o *Observed) { o.NetworkNotReady = "why" },
			"Pending, not ready: a#0 waits ContainerCreating [NetworkNotReady]"},
		{"initialising", testPod(always, "i", "a"), observed(ready, "i#0@s0 running"), nil,
			"Pending, not ready: i#0 running, a#0 waits PodInitializing"},
		{"all run", testPod(always, "i", "a b"), observed(ready, "i#0@s0 exited0", "a#0@s0 running", "b#0@s0 running"), nil,
			"Running, ready: i#0 ended 0 Completed, a#0 running, b#0 running"},
		{"one waits for its image", testPod(always, "", "a b"), observed(ready, "a#0@s0 running"), failed(StartContainer, "b", ReasonErrImagePull, 1),
			"Pending, not ready: a#0 running, b#0 waits ErrImagePull"},
		{"and longer", testPod(always, "", "a b"), observed(ready, "a#0@s0 running"), failed(StartContainer, "b", ReasonErrImagePull, 2),
			"Pending, not ready: a#0 running, b#0 waits ImagePullBackOff"},
		{"crash loop", testPod(always, "", "a"), observed(ready, "a#0@s0 exited1", "a#1@s0 exited2"), backoff,
			"Running, not ready: a#1 waits CrashLoopBackOff after 2 Error"},
		{"restarted", testPod(always, "", "a"), observed(ready, "a#0@s0 exited1", "a#1@s0 running"), nil,
			"Running, ready: a#1 running after 1 Error"},
		{"killed for memory", testPod(never, "", "a"), observed(ready, "a#0@s0 exited137"), func(_ *Desired, o *Observed) { o.Containers[0].OOMKilled = true },
			"Failed, not ready: a#0 ended 137 OOMKilled"},
		{"nobody knows how it ended", testPod(never, "", "a"), observed(ready, "a#0@s0 exited137"), func(_ *Desired, o *Observed) { o.Containers[0].Reason = ReasonContainerStatusUnknown },
			"Failed, not ready: a#0 ended 137 ContainerStatusUnknown"},
		{"all succeeded", testPod(onFailure, "", "a b"), observed(ready, "a#0@s0 exited0", "b#0@s0 exited0"), nil,
			"Succeeded, not ready: a#0 ended 0 Completed, b#0 ended 0 Completed"},
		{"init failed for good", testPod(never, "i", "a"), observed(ready, "i#0@s0 exited3"), nil,
			"Failed, not ready: i#0 ended 3 Error, a#0 waits PodInitializing"},
		{"init fails again and again", testPod(always, "i", "a"), observed(ready, "i#1@s0 exited3"), backoff,
			"Pending, not ready: i#1 waits CrashLoopBackOff after 3 Error, a#0 waits PodInitializing"},
		{"not started yet", probedPod(), observed(ready, "a#0@s0 running"), nil,
			"Running, not ready: a#0 running"},
		{"started, not ready", probedPod(), observed(ready, "a#0@s0 running"), healthy(Health{Started: true}),
			"Running, not ready: a#0 running"},
		{"ready by its probe", probedPod(), observed(ready, "a#0@s0 running"), healthy(Health{Started: true, Ready: true}),
			"Running, ready: a#0 running"},
		{"the verdict is on another run", probedPod(), observed(ready, "a#0@s0 exited1", "a#1@s0 running"), healthy(Health{Started: true, Ready: true}),
			"Running, not ready: a#1 running after 1 Error"},
		{"not admitted", testPod(always, "", "a"), observed(nil), func(d *Desired, _ *Observed) { d.Rejected = &Rejection{Reason: "PodOSNotSupported"} },
			"Failed, not ready: a#0 waits ContainerCreating [PodOSNotSupported]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := Desired{Wish: WishRun, Pod: c.pod}
			if c.change != nil {
				c.change(&d, &c.o)
			}
			if got := brief(Status(d, c.o, Node{}, corev1.PodStatus{}, t0)); got != c.want {
				t.Errorf("status:\n got %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestStatusOfARun: what a run was given and whom it began as are told while there
// is one.
func TestStatusOfARun(t *testing.T) {
	p := testPod(always, "i", "a")
	requests := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m")}
	limits := corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
	p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: requests, Limits: limits}
	o := observed(ready, "i#0@s0 exited0", "a#0@s0 running")
	user := &corev1.LinuxContainerUser{UID: 1000, GID: 7, SupplementalGroups: []int64{7, 8}}
	o.Containers[1].User = user
	d := Desired{Wish: WishRun, Pod: p}
	s := Status(d, o, Node{}, corev1.PodStatus{}, t0)
	a := s.ContainerStatuses[0]
	if !reflect.DeepEqual(a.Resources, &corev1.ResourceRequirements{Requests: requests, Limits: limits}) || !reflect.DeepEqual(a.AllocatedResources, requests) {
		t.Errorf("resources %+v, allocated %+v", a.Resources, a.AllocatedResources)
	}
	if a.User == nil || a.User.Linux != user {
		t.Errorf("user %+v", a.User)
	}
	if i := s.InitContainerStatuses[0]; i.User != nil || i.Resources == nil || i.AllocatedResources != nil {
		t.Errorf("a container that asks for nothing: %+v", i)
	}
	before := Status(d, observed(ready), Node{}, corev1.PodStatus{}, t0).ContainerStatuses[0]
	if before.Resources != nil || before.AllocatedResources != nil || before.User != nil {
		t.Errorf("before its first run: %+v", before)
	}
}

// TestStatusRemembers: a terminal phase is sticky and the time of a condition
// is that of its change.
func TestStatusRemembers(t *testing.T) {
	d := Desired{Wish: WishRun, Pod: testPod(corev1.RestartPolicyAlways, "", "a")}
	o := observed(ready, "a#0@s0 running")
	first := Status(d, o, Node{}, corev1.PodStatus{}, t0)
	later := Status(d, o, Node{}, first, t0.Add(time.Hour))
	for _, c := range later.Conditions {
		if !c.LastTransitionTime.Time.Equal(t0) {
			t.Errorf("%s changed at %s, want %s", c.Type, c.LastTransitionTime, t0)
		}
	}
	if s := Status(d, o, Node{}, corev1.PodStatus{Phase: corev1.PodFailed}, t0); s.Phase != corev1.PodFailed {
		t.Errorf("a failed pod became %s", s.Phase)
	}
	o.Sandboxes = []Sandbox{{ID: "s0", State: SandboxReady, Created: t0.Add(-time.Hour)}}
	if s := Status(d, o, Node{}, corev1.PodStatus{}, t0); !s.StartTime.Equal(&metav1.Time{Time: t0.Add(-time.Hour)}) {
		t.Errorf("an adopted pod started at %s, want when its sandbox was made", s.StartTime)
	}
}

// TestStatusOfAPodThatGoes: while its records are removed it stays what it was.
func TestStatusOfAPodThatGoes(t *testing.T) {
	d := Desired{Wish: WishRun, Pod: testPod(corev1.RestartPolicyAlways, "i", "a")}
	d.Pod.Annotations = map[string]string{annotationSource: "file"} // the phase of an API pod becomes Succeeded or Failed
	ran := Status(d, observed(ready, "i#0@s0 exited0", "a#2@s0 running"), Node{}, corev1.PodStatus{}, t0)
	d.Wish = WishAbsent
	ended := Status(d, observed(ready, "i#0@s0 exited0", "a#2@s0 exited0"), Node{}, ran, t0)
	if end := ended.ContainerStatuses[0].State.Terminated; end == nil {
		t.Errorf("a stopped container is shown as %+v", ended.ContainerStatuses[0])
	}
	older := Status(d, observed(ready, "a#1@s0 exited7"), Node{}, ended, t0)
	if s := older.ContainerStatuses[0]; s.RestartCount != 2 || s.State.Terminated.ExitCode != 0 {
		t.Errorf("a container whose newest record is gone is shown as %+v", s)
	}
	last := Status(d, observed(ready), Node{}, older, t0)
	if last.Phase != corev1.PodRunning {
		t.Errorf("the pod's phase is %s, was %s", last.Phase, ran.Phase)
	}
	if s := last.ContainerStatuses[0]; s.RestartCount != 2 || s.State.Terminated == nil {
		t.Errorf("a container whose record is gone is shown as %+v", s)
	}
	if s := last.InitContainerStatuses[0]; s.State.Terminated == nil {
		t.Errorf("an init container whose record is gone is shown as %+v", s)
	}
}

// TestStatusOfOneOnItsWayOut: what was said of a container stays said when its
// record is gone, and the phase does not go back.
func TestStatusOfOneOnItsWayOut(t *testing.T) {
	d := Desired{Wish: WishRun, Pod: testPod(corev1.RestartPolicyAlways, "i", "a")}
	first := Status(d, observed(ready, "i#0@s0 exited0", "a#2@s0 running"), Node{}, corev1.PodStatus{}, t0)
	d.Wish = WishAbsent
	last := Status(d, observed(stopped), Node{}, first, t0)
	if want := "Running, ready: i#0 ended 0 Completed, a#2 running"; brief(last) != want {
		t.Errorf("status:\n got %s\nwant %s", brief(last), want)
	}
}

// TestStatusOfALostContainer: what the runtime has lost is not shown as running,
// and how it ended stays said until it runs again.
func TestStatusOfALostContainer(t *testing.T) {
	d := Desired{Wish: WishRun, Pod: testPod(corev1.RestartPolicyAlways, "", "a")}
	s := Status(d, observed(ready, "a#2@s0 running"), Node{}, corev1.PodStatus{}, t0)
	for range 2 {
		s = Status(d, observed(nil), Node{}, s, t0)
		c := s.ContainerStatuses[0]
		last := c.LastTerminationState.Terminated
		if c.State.Waiting == nil || c.Ready || c.RestartCount != 2 || last == nil || last.ExitCode != 137 || last.Reason != ReasonContainerStatusUnknown {
			t.Fatalf("a lost container is shown as %+v", c)
		}
	}
	for _, c := range s.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			t.Error("its pod is Ready")
		}
	}
}

func TestStatusAddresses(t *testing.T) {
	node := Node{Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.10")}}
	d := Desired{Wish: WishRun, Pod: testPod(corev1.RestartPolicyAlways, "", "a")}
	o := observed([]Sandbox{{ID: "s0", State: SandboxReady, Addrs: []netip.Addr{netip.MustParseAddr("10.244.0.2"), netip.MustParseAddr("fd00::2")}}})
	s := Status(d, o, node, corev1.PodStatus{}, t0)
	if s.PodIP != "10.244.0.2" || len(s.PodIPs) != 2 || s.HostIP != "192.0.2.10" {
		t.Errorf("addresses are %s %v on %s", s.PodIP, s.PodIPs, s.HostIP)
	}
	d.Pod.Spec.HostNetwork = true
	if s := Status(d, o, node, corev1.PodStatus{}, t0); s.PodIP != "192.0.2.10" {
		t.Errorf("a pod on the host network is at %s", s.PodIP)
	}
}

// TestAdmit: what is not honoured is refused by name.
func TestAdmit(t *testing.T) {
	for field, change := range map[string]func(*corev1.PodSpec){
		"spec.hostUsers":  func(s *corev1.PodSpec) { s.HostUsers = new(false) },
		"spec.volumes[0]": func(s *corev1.PodSpec) { s.Volumes = []corev1.Volume{{Name: "v"}} },
		"spec.containers[0].lifecycle.stopSignal": func(s *corev1.PodSpec) {
			s.Containers[0].Lifecycle = &corev1.Lifecycle{StopSignal: new(corev1.SIGUSR1)}
		},
		"spec.containers[0].env[0].valueFrom": func(s *corev1.PodSpec) { s.Containers[0].Env = []corev1.EnvVar{{ValueFrom: &corev1.EnvVarSource{}}} },
		"spec.containers[0].securityContext.seLinuxOptions": func(s *corev1.PodSpec) {
			s.Containers[0].SecurityContext = &corev1.SecurityContext{SELinuxOptions: &corev1.SELinuxOptions{}}
		},
		"spec.securityContext.seLinuxOptions": func(s *corev1.PodSpec) {
			s.SecurityContext = &corev1.PodSecurityContext{SELinuxOptions: &corev1.SELinuxOptions{}}
		},
		"": func(s *corev1.PodSpec) { // options for other nodes are none for this one
			s.SecurityContext = &corev1.PodSecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{}}
			s.InitContainers[0].SecurityContext = &corev1.SecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{}}
		},
	} {
		p := testPod(corev1.RestartPolicyAlways, "i", "a")
		change(&p.Spec)
		r := Admit(p, Allowed{SELinux: true})
		if strings.HasSuffix(field, "seLinuxOptions") {
			if r := Admit(p, Allowed{}); r != nil {
				t.Errorf("a label without an effect is refused: %s", r.Message)
			}
		}
		if field == "" {
			if r != nil {
				t.Errorf("a plain pod is refused: %s", r.Message)
			}
			continue
		}
		if r == nil || r.Reason != ReasonUnsupported || !strings.Contains(r.Message, field) {
			t.Errorf("a pod with %s is answered with %+v", field, r)
		}
	}
}

// TestContainerHash holds the hash to its value: another one restarts every
// container of every node at the next upgrade.
func TestContainerHash(t *testing.T) {
	if got := ContainerHash(&corev1.Container{Name: "app", Image: "localhost/app:v1"}); got != "0b8b9721d8191b56" {
		t.Errorf("the hash of a container is %s", got)
	}
}
