package workertest

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/pod"
)

// Daemon is one daemon's hold on the world; it implements every interface that
// a pod set works with.
type Daemon struct {
	w      *World
	dead   atomic.Bool
	synced chan struct{}
	// NotReady is why the network is not ready.
	NotReady atomic.Pointer[string]
}

// Daemon returns a new daemon's hold; wake is its pod set's Wake.
func (w *World) Daemon() *Daemon {
	d := &Daemon{w: w, synced: make(chan struct{})}
	close(d.synced)
	return d
}

// Attach makes the world tell the daemon's pod set of changes.
func (d *Daemon) Attach(wake func(types.UID)) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	d.w.wake = wake
}

// Kill ends the daemon: no call of it has an effect any more.
func (d *Daemon) Kill() {
	d.dead.Store(true)
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	d.w.wake, d.w.objectChanged = nil, nil
}

var errDead = errors.New("the daemon is dead")

// step is one external effect of a call: it takes time and may fail before it
// happens; effect runs with the world locked.
func (d *Daemon) step(ctx context.Context, call string, effect func() error) error {
	took, err := d.w.fault(call)
	select {
	case <-time.After(took):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if d.dead.Load() {
		return errDead
	}
	return effect()
}

// Synced implements worker.Runtime.
func (d *Daemon) Synced() <-chan struct{} { return d.synced }

// Pods implements worker.Runtime.
func (d *Daemon) Pods() []types.UID {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	var all []types.UID
	for _, s := range d.w.sandboxes {
		if !slices.Contains(all, s.uid) {
			all = append(all, s.uid)
		}
	}
	return all
}

// Observe implements worker.Runtime.
func (d *Daemon) Observe(uid types.UID) pod.RuntimeState {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	state := pod.RuntimeState{UID: uid}
	for _, s := range d.w.sandboxes {
		if s.uid == uid {
			state.Namespace, state.Name = s.namespace, s.name
			state.Sandboxes = append(state.Sandboxes, s.Sandbox)
		}
	}
	for _, c := range d.w.containers {
		if c.uid == uid {
			state.Containers = append(state.Containers, c.Container)
		}
	}
	return state
}

// RunPodSandbox implements worker.Sandboxes: record, then namespaces and
// address.
func (d *Daemon) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, _ string) (string, error) {
	w := d.w
	m := config.Metadata
	s := &sandbox{uid: types.UID(m.Uid), namespace: m.Namespace, name: m.Name}
	err := d.step(ctx, "record sandbox "+m.Name, func() error {
		grace, _ := strconv.ParseInt(config.Labels[pod.LabelGrace], 10, 64)
		s.Sandbox = pod.Sandbox{ID: w.id("s"), Attempt: m.Attempt, State: pod.SandboxNotReady, Reason: "Incomplete", Created: time.Now(), Grace: grace}
		w.sandboxes[s.ID] = s
		w.note("record %s of %s attempt %d", s.ID, m.Name, m.Attempt)
		return nil
	})
	if err != nil {
		return "", err
	}
	return s.ID, d.step(ctx, "network of sandbox "+m.Name, func() error {
		for _, other := range w.sandboxes {
			if other != s && other.uid == s.uid && !other.Stopped {
				w.breaks("pod %s has two live sandboxes", s.uid)
			}
		}
		s.Addrs = []netip.Addr{w.freeAddr(s.ID)}
		s.State, s.Reason = pod.SandboxReady, ""
		w.note("ready %s", s.ID)
		return nil
	})
}

// StopPodSandbox implements worker.Sandboxes.
func (d *Daemon) StopPodSandbox(ctx context.Context, id string) error {
	w := d.w
	return d.step(ctx, "stop sandbox", func() error {
		s := w.sandboxes[id]
		if s == nil {
			return nil
		}
		for _, c := range w.containers {
			if c.SandboxID == id && c.State == pod.ContainerRunning {
				w.breaks("sandbox %s stopped under the running %s", id, c.Name)
			}
		}
		for a, owner := range w.addrs {
			if owner == id {
				delete(w.addrs, a)
			}
		}
		s.State, s.Stopped, s.Reason, s.Addrs = pod.SandboxNotReady, true, "Stopped", nil
		w.note("stop %s", id)
		return nil
	})
}

// RemovePodSandbox implements worker.Sandboxes.
func (d *Daemon) RemovePodSandbox(ctx context.Context, id string) error {
	w := d.w
	return d.step(ctx, "remove sandbox", func() error {
		if s := w.sandboxes[id]; s != nil && !s.Stopped {
			w.breaks("sandbox %s removed before it was stopped", id)
		}
		delete(w.sandboxes, id)
		w.note("remove %s", id)
		return nil
	})
}

// CreateContainer implements worker.Containers.
func (d *Daemon) CreateContainer(ctx context.Context, in string, config *runtimeapi.ContainerConfig, sc *runtimeapi.PodSandboxConfig) (string, error) {
	w := d.w
	var id string
	err := d.step(ctx, "create "+sc.Metadata.Name+"/"+config.Metadata.Name, func() error {
		if s := w.sandboxes[in]; s == nil || s.State != pod.SandboxReady {
			return errors.New("the sandbox is not ready")
		}
		if w.dirs[types.UID(sc.Metadata.Uid)].IsZero() {
			return errors.New("the pod has no directory")
		}
		if _, ok := w.volumes[types.UID(sc.Metadata.Uid)]; !ok {
			w.breaks("%s of pod %s is made before the pod's volumes", config.Metadata.Name, sc.Metadata.Uid)
		}
		backoff, _ := time.ParseDuration(config.Labels[pod.LabelBackoff])
		init, sidecar := pod.InitPlace(config.Labels[pod.LabelInit])
		c := &container{uid: types.UID(sc.Metadata.Uid)}
		c.Container = pod.Container{
			ID: w.id("c"), Name: config.Metadata.Name, SandboxID: in, Attempt: config.Metadata.Attempt,
			Hash: config.Labels[pod.LabelHash], Backoff: backoff, Init: init, Sidecar: sidecar,
			PreStop: config.Labels[pod.LabelPreStop], PostStart: config.Annotations[pod.AnnotationPostStart] == "true",
			State: pod.ContainerCreated, Created: time.Now(), LogPath: path.Join(sc.LogDirectory, config.LogPath),
		}
		for _, other := range w.containers {
			if other.uid == c.uid && other.Name == c.Name && other.Attempt >= c.Attempt {
				w.breaks("attempt %d of %s of pod %s after attempt %d", c.Attempt, c.Name, c.uid, other.Attempt)
			}
		}
		c.target = config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetTargetId()
		c.behaviour = w.behave(sc.Metadata.Name, c.Name, c.Attempt)
		w.containers[c.ID] = c
		id = c.ID
		w.note("create %s %s attempt %d", c.ID, c.Name, c.Attempt)
		return nil
	})
	return id, err
}

// StartContainer implements worker.Containers. Half of its failures happen
// after the container was given up for dead.
func (d *Daemon) StartContainer(ctx context.Context, id string) error {
	w := d.w
	return d.step(ctx, "start "+id, func() error {
		c := w.containers[id]
		if c == nil || c.State != pod.ContainerCreated {
			return errors.New("no such container to start")
		}
		w.run(c)
		return nil
	})
}

// StopContainer implements worker.Containers.
func (d *Daemon) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	w := d.w
	obeys := false
	err := d.step(ctx, "stop "+id, func() error {
		c := w.containers[id]
		if c == nil || c.State != pod.ContainerRunning {
			return nil
		}
		w.term(c, grace)
		if by := time.Now().Add(grace); !c.termed || by.Before(c.Stop.By) {
			c.Stop.By = by
		}
		c.termed, c.Stop.Hooked = true, true
		w.note("TERM %s %s with %s", c.ID, c.Name, grace)
		if obeys = !c.behaviour.IgnoreTERM; obeys {
			w.exit(c, 143)
		}
		return nil
	})
	if err != nil || obeys {
		return err
	}
	if err := d.awaitEnd(ctx, id); err != nil {
		return err
	}
	return d.step(ctx, "kill "+id, func() error {
		if c := w.containers[id]; c != nil && c.State == pod.ContainerRunning {
			w.exit(c, 137)
		}
		return nil
	})
}

// RemoveContainer implements worker.Containers.
func (d *Daemon) RemoveContainer(ctx context.Context, id string) error {
	w := d.w
	return d.step(ctx, "remove "+id, func() error {
		if c := w.containers[id]; c != nil && c.State == pod.ContainerRunning {
			w.breaks("running container %s (%s) removed", id, c.Name)
		}
		delete(w.containers, id)
		w.note("remove %s", id)
		return nil
	})
}

// Ensure implements worker.Images.
func (d *Daemon) Ensure(ctx context.Context, image string, _ corev1.PullPolicy, _ []*corev1.Secret, tell func(reason, message string)) (string, string, error) {
	tell("Pulled", "Container image \""+image+"\" already present on machine")
	return image, pod.ReasonErrImagePull, d.step(ctx, "pull "+image, func() error { return nil })
}

// EnsurePod implements worker.Cgroups.
func (d *Daemon) EnsurePod(ctx context.Context, uid types.UID, _ corev1.PodQOSClass, _ pod.Resources) (string, error) {
	return "/kubepods/pod" + string(uid), d.step(ctx, "cgroup", func() error {
		d.w.cgroups[uid] = true
		return nil
	})
}

// RemovePod implements worker.Cgroups.
func (d *Daemon) RemovePod(ctx context.Context, uid types.UID) error {
	return d.step(ctx, "remove cgroup", func() error {
		for _, c := range d.w.containers {
			if c.uid == uid && c.State == pod.ContainerRunning {
				d.w.breaks("cgroup of pod %s removed under the running %s", uid, c.Name)
			}
		}
		delete(d.w.cgroups, uid)
		return nil
	})
}

// Ready implements worker.Network.
func (d *Daemon) Ready() error {
	if why := d.NotReady.Load(); why != nil {
		return errors.New(*why)
	}
	return nil
}

// Prepare implements worker.Dirs.
func (d *Daemon) Prepare(p *corev1.Pod) (since time.Time, err error) {
	err = d.step(context.Background(), "make directories", func() error {
		if d.w.dirs[p.UID] == (time.Time{}) {
			d.w.dirs[p.UID] = time.Now()
		}
		since = d.w.dirs[p.UID]
		return nil
	})
	return since, err
}

// Remove implements worker.Dirs.
func (d *Daemon) Remove(ctx context.Context, uid types.UID, _, _ string) error {
	return d.step(ctx, "remove directories", func() error {
		if _, ok := d.w.volumes[uid]; ok {
			d.w.breaks("directories of pod %s removed under its volumes", uid)
		}
		delete(d.w.dirs, uid)
		maps.DeleteFunc(d.w.attempts, func(of string, _ uint32) bool { return strings.HasPrefix(of, string(uid)+"/") })
		return nil
	})
}

// NextAttempt implements worker.Dirs: what ran has left a log.
func (d *Daemon) NextAttempt(uid types.UID, _, _, container string) uint32 {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	return d.w.attempts[string(uid)+"/"+container]
}

// LogDirectory implements worker.Dirs.
func (d *Daemon) LogDirectory(uid types.UID, namespace, name string) string {
	return "/var/log/pods/" + namespace + "_" + name + "_" + string(uid)
}

// Etc implements worker.Files.
func (d *Daemon) Etc(*corev1.Pod, []netip.Addr) ([]*runtimeapi.Mount, error) { return nil, nil }

// TerminationLog implements worker.Files.
func (d *Daemon) TerminationLog(*corev1.Pod, string, uint32) (string, error) { return "/message", nil }

// TerminationMessage implements worker.Files; it panics over a container called
// "cursed", as a hostile message might make it.
func (d *Daemon) TerminationMessage(_ *corev1.Pod, c *corev1.Container, _ pod.Container) string {
	if c.Name == "cursed" {
		panic("a hostile message")
	}
	return ""
}

// Hostname implements worker.Files.
func (d *Daemon) Hostname(p *corev1.Pod) (string, error) { return p.Name, nil }

// LinkLog implements worker.Links.
func (d *Daemon) LinkLog(_ *corev1.Pod, _, id, _ string) error {
	return d.step(context.Background(), "link log", func() error { d.w.links[id] = true; return nil })
}

// UnlinkLog implements worker.Links.
func (d *Daemon) UnlinkLog(_, _, _, id string) error {
	return d.step(context.Background(), "unlink log", func() error { delete(d.w.links, id); return nil })
}

// Stray removes what belongs to no pod, as the rooms of the daemon do.
func (d *Daemon) Stray(ctx context.Context, keep func(types.UID) bool) error {
	return d.step(ctx, "stray", func() error {
		for uid := range d.w.cgroups {
			if !keep(uid) {
				delete(d.w.cgroups, uid)
			}
		}
		for uid := range d.w.volumes {
			if !keep(uid) {
				delete(d.w.volumes, uid)
			}
		}
		for uid := range d.w.dirs {
			if !keep(uid) {
				delete(d.w.dirs, uid)
			}
		}
		return nil
	})
}
