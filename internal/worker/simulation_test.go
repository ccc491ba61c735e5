package worker_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
	"nodeagent/internal/probe"
	"nodeagent/internal/worker"
	"nodeagent/internal/worker/workertest"
)

var (
	seeds    = flag.Int("seeds", 2000, "how many seeds the simulation runs")
	oneSeed  = flag.Uint64("seed", 0, "run only this seed and print what happened")
	settling = 20 * time.Minute // virtual: the longest back-off is 5 min
)

// TestSimulation runs the real pod set over a world in which calls fail and
// take long, containers exit and are killed, networks are lost, the daemon is
// killed at any moment and manifests come and go. In the end, with the world
// calm, what is there must be what is wanted; after all pods are gone nothing
// may be left.
func TestSimulation(t *testing.T) {
	if *oneSeed != 0 {
		simulate(t, *oneSeed)
		return
	}
	for seed := uint64(1); seed <= uint64(*seeds); seed++ {
		simulate(t, seed)
		if t.Failed() {
			t.Fatalf("run again with: go test ./internal/worker -run TestSimulation -seed %d", seed)
		}
	}
}

// TestEveryCallFailsOnce makes each call of one scenario fail in turn.
func TestEveryCallFailsOnce(t *testing.T) {
	for n := 1; ; n++ {
		var made int
		synctest.Test(t, func(t *testing.T) {
			w := workertest.New(1, workertest.Faults{FailNth: n}, behaviour)
			s := newScene(t, w)
			s.want("job", "web")
			s.start()
			time.Sleep(settling)
			s.check()
			s.want()
			time.Sleep(settling)
			s.checkGone()
			s.stop()
			made = w.Calls()
		})
		if t.Failed() {
			t.Fatalf("with call %d failing", n)
		}
		if n > made {
			t.Logf("each of %d calls failed in turn", made)
			return
		}
	}
}

// TestPanicOverOnePod: what one pod's turn panics over holds up no other pod, and
// ends the process only when it comes again and again.
func TestPanicOverOnePod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, workertest.New(1, workertest.Faults{}, behaviour))
		s.want("web")
		s.start()
		time.Sleep(time.Minute)
		s.want("web", "cursed")
		time.Sleep(40 * time.Second) // it has ended once and was looked at twice
		for _, p := range s.set.Pods() {
			if p.Name == "web" && !allReady(p.Status) {
				t.Error("the other pod is not ready")
			}
		}
		time.Sleep(5 * time.Minute)
		s.cancel()
		if err := <-s.done; err == nil {
			t.Error("a panic at every turn did not end the process")
		}
	})
}

func simulate(t *testing.T, seed uint64) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(seed, 0))
		w := workertest.New(seed, workertest.Faults{Percent: r.IntN(20), SlowPercent: r.IntN(20)}, behaviour)
		s := newScene(t, w)
		s.start()
		for range 3 + r.IntN(10) {
			s.disturb(r)
			time.Sleep(time.Duration(r.IntN(20000)) * time.Millisecond)
		}
		w.PutConfigMap(settings("penultimate"))
		w.Calm()
		w.PutConfigMap(settings("last"))
		s.want(podNames...)
		time.Sleep(time.Minute) // who lacks it waits for nothing else any more
		w.PutSecret(keeperSecret)
		time.Sleep(settling)
		s.check()
		s.want()
		time.Sleep(settling)
		s.checkGone()
		s.stop()
		if t.Failed() || *oneSeed != 0 {
			t.Logf("seed %d:\n%s", seed, strings.Join(w.Log(), "\n"))
		}
	})
}

// behaviour is what the containers of the scene's pods do, by name.
func behaviour(podName, container string, attempt uint32) workertest.Behaviour {
	switch container {
	case "init", "init2":
		return workertest.Behaviour{Runs: 50 * time.Millisecond}
	case "badinit":
		return workertest.Behaviour{Runs: 50 * time.Millisecond, Code: 3}
	case "cursed":
		return workertest.Behaviour{Runs: time.Second, Code: 1}
	case "once":
		return workertest.Behaviour{Runs: 3 * time.Second, Code: 7}
	case "flaky":
		if attempt < 3 {
			return workertest.Behaviour{Runs: time.Second, Code: 1}
		}
	case "slow":
		return workertest.Behaviour{StartupTakes: 15 * time.Second}
	case "sick":
		if attempt < 2 {
			return workertest.Behaviour{FailsAfter: 20 * time.Second, IgnoreTERM: true}
		}
	case "deaf":
		return workertest.Behaviour{IgnoreTERM: true}
	case "proxy":
		return workertest.Behaviour{StartupTakes: 300 * time.Millisecond}
	case "work":
		return workertest.Behaviour{Runs: 5 * time.Second}
	case "again":
		if attempt < 2 {
			return workertest.Behaviour{Runs: 2 * time.Second, Code: 88}
		}
	}
	return workertest.Behaviour{}
}

// scene is a node in the world: the sources' wish and the daemon there is.
type scene struct {
	t      *testing.T
	w      *workertest.World
	d      *workertest.Daemon
	set    *worker.Set
	cancel context.CancelFunc
	done   chan error
	wanted []string
}

func newScene(t *testing.T, w *workertest.World) *scene {
	w.PutConfigMap(settings("0"))
	return &scene{t: t, w: w}
}

// settings is the ConfigMap that a volume of web shows.
func settings(value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "settings", Namespace: "default"},
		Data:       map[string]string{"value": value},
	}
}

// start starts a daemon.
func (s *scene) start() {
	s.d = s.w.Daemon()
	probes, err := probe.New(probe.Config{
		Prober: s.d, Records: workertest.Verdicts{Daemon: s.d}, Wake: func(uid types.UID) { s.set.Wake(uid) }, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	set, err := worker.New(worker.Config{
		Runtime: s.d, Sandboxes: s.d, Containers: s.d, Stops: s.d, Hooks: s.d, Images: s.d, Cgroups: s.d,
		Network: s.d, Dirs: s.d, Files: s.d, Links: s.d, Objects: s.d, Probes: probes, Stray: s.stray(probes),
		Volumes: s.d.Volumes(),
		Sources: []string{"file"}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.set = set
	s.d.Attach(set.Wake)
	s.d.AttachObjects(set.ObjectChanged)
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.done = cancel, make(chan error, 1)
	go func() { s.done <- errors.Join(runBoth(ctx, set.Run, probes.Run)...) }()
	s.offer()
}

// stop ends the daemon: killed, its calls have no effect any more; else it
// detaches.
func (s *scene) stop() {
	s.cancel()
	if err := <-s.done; err != nil {
		s.t.Errorf("the pod set ended with %v", err)
	}
}

func (s *scene) kill() {
	s.d.Kill()
	s.stop()
}

func (s *scene) want(names ...string) {
	s.wanted = names
	if s.set != nil {
		s.offer()
	}
}

func (s *scene) offer() {
	snap := worker.Snapshot{Source: "file", Synced: true, Trusted: true}
	for _, name := range s.wanted {
		snap.Pods = append(snap.Pods, pod.Desired{Wish: pod.WishRun, Pod: podNamed(name)})
	}
	s.set.Offer(snap)
}

var podNames = []string{"web", "job", "initfails", "flaky", "hardy", "keeper", "probed", "mesh", "batch", "reset", "limited"}

// disturb changes something.
func (s *scene) disturb(r *rand.Rand) {
	name := podNames[r.IntN(len(podNames))]
	switch r.IntN(11) {
	case 0, 1:
		var names []string
		for _, n := range podNames {
			if r.IntN(3) > 0 {
				names = append(names, n)
			}
		}
		s.want(names...)
	case 2:
		s.kill()
		time.Sleep(time.Duration(r.IntN(5000)) * time.Millisecond)
		s.start()
	case 3:
		s.stop()
		s.d.Kill()
		s.start()
	case 4:
		s.w.LoseNetwork(types.UID(name))
	case 5:
		s.w.KillContainer(types.UID(name), "app")
	case 6:
		s.w.PutConfigMap(settings(fmt.Sprint(r.IntN(100))))
	case 7:
		s.w.DropObject(pod.ObjectRef{Kind: pod.ConfigMapKind, Namespace: "default", Name: "settings"})
	case 8:
		s.w.PutSecret(keeperSecret)
	case 9:
		s.w.DropObject(pod.ObjectRef{Kind: pod.SecretKind, Namespace: "default", Name: "kept"})
	case 10:
		_ = s.set.Restart("default", name, "")
	}
}

// check compares what is there with what is wanted.
func (s *scene) check() {
	s.t.Helper()
	for _, b := range s.w.Broken() {
		s.t.Error(b)
	}
	status := map[string]corev1.PodStatus{}
	for _, p := range s.set.Pods() {
		status[p.Name] = p.Status
	}
	for _, name := range s.wanted {
		want := map[string]corev1.PodPhase{
			"job": corev1.PodFailed, "initfails": corev1.PodFailed, "batch": corev1.PodSucceeded, "limited": corev1.PodFailed,
		}[name]
		if want == "" {
			want = corev1.PodRunning
		}
		if name == "batch" && status[name].Phase == corev1.PodFailed {
			want = corev1.PodFailed // it lost its network at work, or was told to restart
		}
		if got := status[name].Phase; got != want {
			s.t.Errorf("pod %s is %q, want %s: %+v", name, got, want, status[name])
		}
		if want == corev1.PodRunning && !allReady(status[name]) {
			s.t.Errorf("pod %s is not ready: %+v", name, status[name].ContainerStatuses)
		}
	}
	for _, name := range s.wanted {
		if shown, now := s.w.Shown(podNamed(name)); shown != now {
			s.t.Errorf("the volumes of pod %s show %s, want %s", name, shown, now)
		}
	}
	if len(status) != len(s.wanted) {
		s.t.Errorf("%d pods have a status, want %d", len(status), len(s.wanted))
	}
}

func (s *scene) checkGone() {
	s.t.Helper()
	for _, b := range s.w.Broken() {
		s.t.Error(b)
	}
	for _, l := range s.w.Left() {
		s.t.Errorf("left over: %s", l)
	}
}

func allReady(s corev1.PodStatus) bool {
	for _, c := range s.ContainerStatuses {
		if !c.Ready {
			return false
		}
	}
	return len(s.ContainerStatuses) > 0
}

// keeperSecret is what the pod "keeper" cannot start without.
var keeperSecret = &corev1.Secret{
	ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kept"},
	Data:       map[string][]byte{"k": []byte("v")},
}

// podNamed makes the pod of that name; its containers' names say what they do.
func podNamed(name string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name)},
		Spec: corev1.PodSpec{
			RestartPolicy:                 corev1.RestartPolicyAlways,
			TerminationGracePeriodSeconds: new(int64(10)),
		},
	}
	spec := &p.Spec
	switch name {
	case "web":
		spec.InitContainers = containers("init", "init2")
		spec.Containers = containers("app", "side")
		spec.Volumes = []corev1.Volume{{Name: "s", VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}}}
	case "job":
		spec.RestartPolicy = corev1.RestartPolicyNever
		spec.Containers = containers("once")
	case "initfails":
		spec.RestartPolicy = corev1.RestartPolicyNever
		spec.InitContainers = containers("badinit")
		spec.Containers = containers("app")
	case "flaky":
		spec.RestartPolicy = corev1.RestartPolicyOnFailure
		spec.Containers = containers("flaky", "app")
	case "hardy":
		spec.Containers = containers("deaf")
	case "probed":
		spec.Containers = containers("slow", "sick")
		asks := corev1.Probe{TimeoutSeconds: 1, PeriodSeconds: 20, SuccessThreshold: 1, FailureThreshold: 3}
		slow, sick := &spec.Containers[0], &spec.Containers[1]
		slow.StartupProbe, slow.ReadinessProbe, sick.LivenessProbe = new(asks), new(asks), new(asks)
		sick.LivenessProbe.TerminationGracePeriodSeconds = new(int64(3))
		spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
	case "keeper":
		spec.Containers = containers("app")
		spec.Containers[0].Env = []corev1.EnvVar{{Name: "K", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: "kept"}, Key: "k",
		}}}}
	case "mesh": // sidecars with a startup probe and hooks
		spec.InitContainers = containers("log", "init", "proxy")
		spec.InitContainers[0].RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		spec.InitContainers[2].RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		spec.InitContainers[2].StartupProbe = &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{}},
			PeriodSeconds: 1, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 30,
		}
		spec.InitContainers[2].Lifecycle = &corev1.Lifecycle{PostStart: sleepHook(1), PreStop: sleepHook(2)}
		spec.Containers = containers("app", "side")
		spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: sleepHook(0), PreStop: sleepHook(3)}
	case "batch": // ends although its sidecar does not
		spec.RestartPolicy = corev1.RestartPolicyNever
		spec.InitContainers = containers("log")
		spec.InitContainers[0].RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		spec.Containers = containers("work")
	case "reset": // an exit code of one starts all anew
		spec.RestartPolicy = corev1.RestartPolicyNever
		spec.InitContainers = containers("init")
		spec.Containers = containers("again", "app")
		spec.Containers[0].RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{
			Action:    corev1.ContainerRestartRuleActionRestartAllContainers,
			ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{88}},
		}}
		spec.Containers[1].RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
	case "limited":
		spec.ActiveDeadlineSeconds = new(int64(60))
		spec.Containers = containers("deaf")
	case "debugged":
		spec.Containers = containers("app")
		spec.EphemeralContainers = []corev1.EphemeralContainer{{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "once", Image: "example/once:v1"}, TargetContainerName: "app",
		}}
	case "cursed":
		spec.RestartPolicy = corev1.RestartPolicyNever
		spec.Containers = containers("cursed")
	default:
		panic(fmt.Sprintf("no pod is called %s", name))
	}
	return p
}

func sleepHook(seconds int64) *corev1.LifecycleHandler {
	return &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: seconds}}
}

func containers(names ...string) []corev1.Container {
	var all []corev1.Container
	for _, n := range names {
		all = append(all, corev1.Container{Name: n, Image: "example/" + n + ":v1"})
	}
	return all
}
