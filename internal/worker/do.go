package worker

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/failpoint"
	"nodeagent/internal/pod"
)

// Deadlines of the steps. A pull has none of its own: it ends when it makes no
// progress. A stop has its grace period on top.
const (
	deadlinePrepare = 10 * time.Second
	deadlineSandbox = 60 * time.Second
	deadlineCreate  = 60 * time.Second
	deadlineStop    = 60 * time.Second
	deadlineRemove  = 60 * time.Second
)

// do runs one action to its end and says why it failed.
func (s *Set) do(ctx context.Context, w *worker, a pod.Action, d pod.Desired) (reason string, err error) {
	within := func(limit time.Duration, f func(context.Context) error) error {
		bounded, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return f(bounded)
	}
	switch a.Kind {
	case pod.Prepare:
		return s.prepare(ctx, w, d)
	case pod.RefreshVolumes:
		return pod.ReasonFailedMount, within(deadlinePrepare, func(ctx context.Context) error { return s.cfg.Volumes.Setup(ctx, d.Pod) })
	case pod.RunSandbox:
		return pod.ReasonFailedCreatePodSandBox, within(deadlineSandbox, func(ctx context.Context) error { return s.runSandbox(ctx, a, d) })
	case pod.StartContainer:
		return s.startContainer(ctx, w, a, d)
	case pod.StopContainer:
		return "FailedKillPod", within(a.Grace+deadlineStop, func(ctx context.Context) error { return s.stop(ctx, a) })
	case pod.ShortenStop:
		return "FailedKillPod", within(a.Grace+deadlineStop, func(ctx context.Context) error {
			return s.cfg.Containers.StopContainer(ctx, a.Container, a.Grace)
		})
	case pod.PostStart:
		return s.postStart(ctx, w, a, d)
	case pod.PreStop:
		return pod.ReasonFailedPreStopHook, s.preStop(ctx, w, a, d)
	case pod.RemoveContainer:
		return "FailedRemoveContainer", within(deadlineRemove, func(ctx context.Context) error {
			return s.removeContainer(ctx, w, a)
		})
	case pod.StopSandbox:
		return "FailedStopPodSandBox", within(deadlineStop, func(ctx context.Context) error {
			return s.cfg.Sandboxes.StopPodSandbox(ctx, a.Sandbox)
		})
	case pod.RemoveSandbox:
		return "FailedRemovePodSandBox", within(deadlineRemove, func(ctx context.Context) error {
			return s.cfg.Sandboxes.RemovePodSandbox(ctx, a.Sandbox)
		})
	case pod.ReleaseCgroup:
		return "FailedCleanup", within(deadlineRemove, func(ctx context.Context) error { return s.release(ctx, w) })
	case pod.Cleanup:
		return "FailedCleanup", within(deadlineRemove, func(ctx context.Context) error { return s.cleanup(ctx, w) })
	}
	return pod.ReasonInternalError, fmt.Errorf("unknown action %q", a.Kind)
}

func (s *Set) prepare(ctx context.Context, w *worker, d pod.Desired) (reason string, err error) {
	ctx, cancel := context.WithTimeout(ctx, deadlinePrepare)
	defer cancel()
	since, err := s.cfg.Dirs.Prepare(d.Pod)
	if err != nil {
		return pod.ReasonFailedCreatePodSandBox, err
	}
	w.since.Store(&since)
	if _, err := s.ensureCgroup(ctx, d); err != nil {
		return pod.ReasonFailedCreatePodSandBox, err
	}
	return pod.ReasonFailedMount, s.cfg.Volumes.Setup(ctx, d.Pod)
}

// release ends what a pod that will not run again still holds on the node.
func (s *Set) release(ctx context.Context, w *worker) error {
	// The cgroup first: what is left in it could hold a volume.
	if err := s.cfg.Cgroups.RemovePod(ctx, w.uid); err != nil {
		return err
	}
	return s.cfg.Volumes.Remove(ctx, w.uid)
}

// ensureCgroup makes the pod's cgroup, or finds it, and names it.
func (s *Set) ensureCgroup(ctx context.Context, d pod.Desired) (string, error) {
	return s.cfg.Cgroups.EnsurePod(ctx, d.Pod.UID, pod.QOSClass(d.Pod), s.cfg.Node.Limits.Pod(d.Pod))
}

func (s *Set) runSandbox(ctx context.Context, a pod.Action, d pod.Desired) (err error) {
	back, err := s.slots.take(ctx)
	if err != nil {
		return err
	}
	defer func() { back(err == nil) }()
	config, err := s.sandboxConfig(ctx, d, a.Attempt)
	if err != nil {
		return err
	}
	_, err = s.cfg.Sandboxes.RunPodSandbox(ctx, config, pod.RuntimeHandler(d.Pod))
	return err
}

func (s *Set) removeContainer(ctx context.Context, w *worker, a pod.Action) error {
	// The container's record goes last: it is what a retry starts from.
	namespace, name := splitName(w.name)
	if err := s.cfg.Links.UnlinkLog(namespace, name, a.Name, a.Container); err != nil {
		return err
	}
	return s.cfg.Containers.RemoveContainer(ctx, a.Container)
}

func (s *Set) cleanup(ctx context.Context, w *worker) error {
	if err := s.release(ctx, w); err != nil {
		return err
	}
	namespace, name := splitName(w.name)
	return s.cfg.Dirs.Remove(ctx, w.uid, namespace, name)
}

// startContainer has the image at hand, then creates and starts the container.
func (s *Set) startContainer(ctx context.Context, w *worker, a pod.Action, d pod.Desired) (reason string, err error) {
	spec := pod.ContainerOf(d.Pod, a.Name)
	if spec == nil {
		return pod.ReasonInternalError, fmt.Errorf("start container %q: the pod has no such container", a.Name)
	}
	defer func() { w.countStart(d.Pod, a.Name, reason) }()
	if a.Attempt == 0 {
		a.Attempt = s.cfg.Dirs.NextAttempt(d.Pod.UID, d.Pod.Namespace, d.Pod.Name, a.Name)
	}
	image, reason, err := s.ensureImage(ctx, w, d.Pod, spec)
	if err != nil {
		return reason, err
	}
	if err := failpoint.At(failpoint.WorkerImageAfter); err != nil {
		return pod.ReasonImageInspectError, err
	}
	w.reach(a.Op(), pod.GateCreate)
	back, err := s.slots.take(ctx)
	if err != nil {
		return pod.ReasonCreateContainerError, err
	}
	defer func() { back(err == nil) }()
	bounded, cancel := context.WithTimeout(ctx, deadlineCreate)
	defer cancel()
	sandbox, err := s.sandboxConfig(bounded, d, s.sandboxAttempt(w.uid, a.Sandbox))
	if err != nil {
		return pod.ReasonCreateContainerConfigError, err
	}
	config, err := s.containerConfig(bounded, d, spec, a, image, s.cfg.Runtime.Observe(w.uid))
	if err != nil {
		return pod.ReasonCreateContainerConfigError, err
	}
	if err := s.mountVolumes(bounded, d.Pod, spec, config); err != nil {
		return pod.ReasonCreateContainerConfigError, err
	}
	if err := failpoint.At(failpoint.WorkerConfigAfter); err != nil {
		return pod.ReasonCreateContainerError, err
	}
	id, err := s.cfg.Containers.CreateContainer(bounded, a.Sandbox, config, sandbox)
	if err != nil {
		return createReason(err), err
	}
	w.normal(d.Pod, a.Name, "Created", "Container created")
	log := filepath.Join(sandbox.LogDirectory, config.LogPath)
	if err := s.cfg.Links.LinkLog(d.Pod, a.Name, id, log); err != nil {
		return pod.ReasonCreateContainerError, err
	}
	w.reach(a.Op(), pod.GateStart)
	if err := s.cfg.Containers.StartContainer(bounded, id); err != nil {
		return pod.ReasonRunContainerError, err
	}
	w.normal(d.Pod, a.Name, "Started", "Container started")
	return "", nil
}

// ensureImage has the container's image at hand. A pull may hang for as long as
// its registry does; it ends at once when the pod is to go.
func (s *Set) ensureImage(ctx context.Context, w *worker, p *corev1.Pod, spec *corev1.Container) (image, reason string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.wanted, cancel)()
	return s.cfg.Images.Ensure(ctx, spec.Image, spec.ImagePullPolicy, s.pullSecrets(w, p), func(reason, message string) {
		w.normal(p, spec.Name, reason, message)
	})
}

// createReason tells a container whose configuration cannot work from one that
// could not be made this time.
func createReason(err error) string {
	var config interface{ ConfigError() bool }
	if errors.As(err, &config) && config.ConfigError() {
		return pod.ReasonCreateContainerConfigError
	}
	return pod.ReasonCreateContainerError
}
