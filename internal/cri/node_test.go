package cri_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apitypes "github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/mount"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/cri"
	"nodeagent/internal/cri/critest"
	"nodeagent/internal/pod"
	"nodeagent/internal/shimapi"
	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// node is a bed with a runtime on it, which may be stopped and started anew.
type node struct {
	*cri.Native
	t, bedT testing.TB // of the running subtest; of the bed
	bed     *bed.Bed
	dir     string // the bed's
	cgroups string // the bed's cgroup
	net     *critest.Network
	cfg     cri.Config

	cancel context.CancelFunc
	ended  chan error

	mu    sync.Mutex
	woken chan struct{} // closed and replaced at each wake
}

func newNode(t testing.TB, o bed.Options, change ...func(*cri.Config)) *node {
	t.Helper()
	need.Have(t, need.Root)
	b := bed.Containerd(t, o)
	if err := b.Import(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := &node{
		t: t, bedT: t, bed: b, dir: b.Dir(), cgroups: b.CgroupRoot(),
		net: critest.New(netip.MustParseAddr("10.88.0.2")), woken: make(chan struct{}),
	}
	n.configure(b.Address())
	if o.Stock {
		n.cfg.Runtime = "io.containerd.runc.v2"
	}
	for _, f := range change {
		f(&n.cfg)
	}
	n.start()
	t.Cleanup(n.stop)
	return n
}

// configure lays everything of the runtime into the node's directory.
func (n *node) configure(address string) {
	n.cfg = cri.Config{
		Address: address, RunDir: filepath.Join(n.dir, "run"), StateDir: filepath.Join(n.dir, "lib"),
		NetnsDir: filepath.Join(n.dir, "netns"), Network: n.net, LogMaxSize: 1 << 20, LogMaxFiles: 3,
		Wake:   func(types.UID) { n.wake() },
		Logger: slog.New(slog.NewTextHandler(testWriter{n}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

type testWriter struct{ n *node }

func (w testWriter) Write(p []byte) (int, error) {
	w.n.t.Logf("%s", p)
	return len(p), nil
}

func (n *node) start() {
	n.t.Helper()
	r, err := cri.New(n.cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.Native, n.cancel, n.ended = r, cancel, make(chan error, 1)
	go func() { n.ended <- r.Run(ctx) }()
	select {
	case <-r.Synced():
	case <-time.After(need.Slow(30 * time.Second)):
		n.t.Fatalf("not adopted after 30 s: %v", r.Healthy())
	}
}

// stop ends the runtime as a killed daemon would: it tells nobody.
func (n *node) stop() {
	n.cancel()
	select {
	case err := <-n.ended:
		if err != nil {
			n.t.Errorf("run: %v", err)
		}
		n.ended <- nil
	case <-time.After(need.Slow(20 * time.Second)):
		n.t.Error("the runtime did not end within 20 s")
	}
}

func (n *node) wake() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.woken)
	n.woken = make(chan struct{})
}

// await waits until ok holds for the pod; it looks at every wake.
func (n *node) await(uid types.UID, what string, limit time.Duration, ok func(pod.RuntimeState) bool) pod.RuntimeState {
	n.t.Helper()
	limit = need.Slow(limit)
	deadline := time.After(limit)
	for {
		n.mu.Lock()
		woken := n.woken
		n.mu.Unlock()
		s := n.Observe(uid)
		if ok(s) {
			return s
		}
		select {
		case <-woken:
		case <-deadline:
			n.t.Fatalf("not %s after %s: %+v", what, limit, s)
		}
	}
}

func (n *node) awaitExit(uid types.UID, id string, limit time.Duration) pod.Container {
	n.t.Helper()
	s := n.await(uid, "exited", limit, func(s pod.RuntimeState) bool {
		c, ok := find(s, id)
		return ok && c.State == pod.ContainerExited
	})
	c, _ := find(s, id)
	return c
}

func find(s pod.RuntimeState, id string) (pod.Container, bool) {
	for _, c := range s.Containers {
		if c.ID == id {
			return c, true
		}
	}
	return pod.Container{}, false
}

// sandboxConfig is that of a pod named by uid.
func (n *node) sandboxConfig(uid string) *runtimeapi.PodSandboxConfig {
	parent := filepath.Join(n.cgroups, "pod"+uid)
	n.makeCgroup(parent)
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: uid, Namespace: "default", Uid: uid},
		Hostname:     uid,
		LogDirectory: filepath.Join(n.dir, "logs", uid),
		Labels:       map[string]string{pod.LabelGrace: "7", "evil": "containerd.io/gc.root"},
		Annotations:  map[string]string{"io.containerd.evil": "x"},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: parent,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
			},
		},
	}
}

// makeCgroup stands in for the room that owns the pod cgroups.
func (n *node) makeCgroup(parent string) {
	n.t.Helper()
	if n.t.Name() == "" {
		return
	}
	hierarchies, err := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	if err != nil {
		n.t.Fatal(err)
	}
	for _, h := range hierarchies {
		dir := filepath.Join(filepath.Dir(h), parent)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			continue // a hierarchy without a bed's cgroup
		}
		n.t.Cleanup(func() { _ = os.Remove(dir) })
	}
}

func containerConfig(name string, attempt uint32, args ...string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name, Attempt: attempt},
		Image:    &runtimeapi.ImageSpec{Image: image.Example, UserSpecifiedImage: "example"},
		Args:     args,
		LogPath:  filepath.Join(name, fmt.Sprint(attempt)+".log"),
		Labels: map[string]string{
			pod.LabelContainerName: name, pod.LabelHash: "abcd", pod.LabelBackoff: "10s", "containerd.io/gc.root": "evil",
		},
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources: &runtimeapi.LinuxContainerResources{OomScoreAdj: 1000},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER},
				Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
			},
		},
	}
}

func (n *node) runSandbox(config *runtimeapi.PodSandboxConfig) string {
	n.t.Helper()
	id, err := n.RunPodSandbox(n.t.Context(), config, "")
	if err != nil {
		n.t.Fatal(err)
	}
	return id
}

func (n *node) runContainer(sandbox string, config *runtimeapi.ContainerConfig, s *runtimeapi.PodSandboxConfig) string {
	n.t.Helper()
	id, err := n.CreateContainer(n.t.Context(), sandbox, config, s)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := n.StartContainer(n.t.Context(), id); err != nil {
		n.t.Fatal(err)
	}
	n.heedsTerm(types.UID(s.Metadata.Uid), id, config)
	return id
}

// heedsTerm waits until a program is not deaf to TERM any more, as process 1 is at first.
func (n *node) heedsTerm(uid types.UID, id string, config *runtimeapi.ContainerConfig) {
	n.t.Helper()
	c, _ := find(n.Observe(uid), id)
	if tells := config.Image.Image == image.Example && len(config.Command) == 0 && len(config.Args) > 0 && slices.Contains([]string{"sleep", "deaf"}, config.Args[0]); !tells || c.Pid == 0 {
		<-time.After(150 * time.Millisecond)
		return
	}
	for deadline := time.Now().Add(need.Slow(30 * time.Second)); ; <-time.After(2 * time.Millisecond) {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", c.Pid))
		if err != nil || string(name) == "podtool-up\n" {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("process %d of container %s is still %q", c.Pid, id, name)
		}
	}
}

// removePod takes a pod away as a worker would.
func (n *node) removePod(uid types.UID, grace time.Duration) {
	n.t.Helper()
	ctx := n.t.Context()
	s := n.Observe(uid)
	for _, c := range s.Containers {
		if err := n.StopContainer(ctx, c.ID, grace); err != nil {
			n.t.Error(err)
		}
	}
	for _, sb := range s.Sandboxes {
		if err := n.StopPodSandbox(ctx, sb.ID); err != nil {
			n.t.Error(err)
		}
	}
	for _, c := range s.Containers {
		if err := n.RemoveContainer(ctx, c.ID); err != nil {
			n.t.Error(err)
		}
	}
	for _, sb := range s.Sandboxes {
		if err := n.RemovePodSandbox(ctx, sb.ID); err != nil {
			n.t.Error(err)
		}
	}
	if left := n.Observe(uid); !left.Empty() {
		n.t.Errorf("left of %s: %+v", uid, left)
	}
}

// nothingLeft compares the bed with what it was; the pod's cgroup is the
// test's own.
func (n *node) nothingLeft(before bed.Snapshot) {
	n.t.Helper()
	// Content: the collector takes the imported archive's index at any time.
	skip := []string{"cgroup", "content"}
	if n.cfg.Runtime != "" { // containerd's own shim leaves its socket
		skip = append(skip, "shim-socket")
	}
	var diff []string
	began := time.Now()
	defer func() { n.t.Logf("compared for %s", time.Since(began)) }()
	for wait, end := 10*time.Millisecond, time.Now().Add(need.Slow(10*time.Second)); time.Now().Before(end); wait *= 2 {
		now, err := n.bed.Snapshot(n.t.Context())
		if err != nil {
			n.t.Error(err)
			return
		}
		diff = slices.DeleteFunc(before.Diff(now), func(line string) bool {
			kind, _, _ := strings.Cut(line[2:], " ")
			return slices.Contains(skip, kind) || strings.Contains(line, "file logs")
		})
		if len(diff) == 0 {
			break
		}
		<-time.After(min(wait, 500*time.Millisecond))
	}
	if len(diff) > 0 {
		n.t.Errorf("left behind:\n%s", strings.Join(diff, "\n"))
	}
	if len(n.net.Held()) != 0 {
		n.t.Errorf("addresses left: %v", n.net.Held())
	}
}

func (n *node) uid(name string) types.UID { return types.UID(name) }

func contextWithTimeout(t testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

func shimPid(t testing.TB, n *node, sandbox string) int {
	t.Helper()
	r, err := shimapi.ReadShim(n.cfg.RunDir, sandbox)
	check(t, err)
	return r.Pid
}

func itoa(pid uint32) string { return fmt.Sprint(pid) }

func protoMounts(mounts []mount.Mount) []*apitypes.Mount {
	var out []*apitypes.Mount
	for _, m := range mounts {
		out = append(out, &apitypes.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return out
}
