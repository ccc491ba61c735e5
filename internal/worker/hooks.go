package worker

import (
	"context"
	"errors"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
)

// deadlineHook bounds a postStart hook, which kubelet does not: it ends with its
// container, or when the pod is to go, and after this at the latest.
const deadlineHook = time.Hour

// deadlineNote bounds a note about a container.
const deadlineNote = 10 * time.Second

// postStart runs the container's postStart hook. The hook counts as due until its good
// end is noted, so a daemon that dies in it leaves it to the next one: a hook may run
// twice, as Kubernetes says, and is never forgotten.
func (s *Set) postStart(ctx context.Context, w *worker, a pod.Action, d pod.Desired) (reason string, err error) {
	ctx, cancel := context.WithTimeout(ctx, deadlineHook)
	defer cancel()
	defer context.AfterFunc(w.wanted, cancel)()
	handler, err := pod.PostStartOf(pod.ContainerOf(d.Pod, a.Name))
	if err == nil && handler != nil {
		err = s.cfg.Hooks.Run(ctx, s.hook(w, a, handler))
	}
	if err != nil {
		return pod.ReasonFailedPostStartHook, err
	}
	return pod.ReasonInternalError, s.cfg.Stops.NotePostStart(ctx, a.Container)
}

// preStop notes until when the container is to have ended, then runs its preStop hook for
// as long. A hook that fails keeps nobody from being stopped; one that the daemon's end
// breaks off is run again by the next one, in what is left of the time.
func (s *Set) preStop(ctx context.Context, w *worker, a pod.Action, d pod.Desired) error {
	handler, err := s.preStopHandler(w, a, d.Pod)
	if err != nil {
		s.preStopFailed(w, a, err)
	}
	note := func(hooked bool) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deadlineNote)
		defer cancel()
		return s.cfg.Stops.NoteStop(ctx, a.Container, a.Grace, hooked, a.Again)
	}
	if err := note(handler == nil); err != nil || handler == nil {
		return err
	}
	bounded, cancel := context.WithTimeoutCause(ctx, a.Grace, errNoTime)
	defer cancel()
	if err := s.cfg.Hooks.Run(bounded, s.hook(w, a, handler)); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.preStopFailed(w, a, err)
	}
	return note(true)
}

var errNoTime = errors.New("the grace period is over")

func (s *Set) preStopFailed(w *worker, a pod.Action, err error) {
	w.warn(w.wish().Pod, a.Name, pod.ReasonFailedPreStopHook, "PreStopHook failed")
	w.log.Warn("preStop hook failed", "container", a.Name, "reason", pod.ReasonFailedPreStopHook, "err", err)
}

func (s *Set) preStopHandler(w *worker, a pod.Action, p *corev1.Pod) (*corev1.LifecycleHandler, error) {
	for _, run := range s.cfg.Runtime.Observe(w.uid).Containers {
		if run.ID == a.Container {
			return pod.PreStopOf(p, &run)
		}
	}
	return nil, nil
}

// hook is the handler with what it needs to know of the pod.
func (s *Set) hook(w *worker, a pod.Action, handler *corev1.LifecycleHandler) pod.Hook {
	h := pod.Hook{Container: a.Container, Handler: handler}
	seen := s.cfg.Runtime.Observe(w.uid)
	var addrs []netip.Addr
	for _, run := range seen.Containers {
		if run.ID == a.Container {
			addrs = s.podAddrs(run.SandboxID, seen)
		}
	}
	if len(addrs) > 0 {
		h.Addr = addrs[0]
	}
	return h
}

// stop ends a container.
func (s *Set) stop(ctx context.Context, a pod.Action) error {
	if a.Again {
		if err := s.cfg.Stops.NoteStop(ctx, a.Container, a.Grace, true, true); err != nil {
			return err
		}
	}
	return s.cfg.Containers.StopContainer(ctx, a.Container, a.Grace)
}

// cutHooks ends the hooks of containers that do not run any more: there is nobody left
// to run them in, or for.
func (w *worker) cutHooks(o pod.Observed) {
	for op, cut := range w.cuts {
		running := false
		for i := range o.Containers {
			c := &o.Containers[i]
			running = running || c.ID == op.Object && c.State == pod.ContainerRunning
		}
		if !running {
			cut()
		}
	}
}

// cuttable returns a context that ends when the hook is cut: with its container, when the
// next step of its end begins, or with the parent.
func (w *worker) cuttable(ctx context.Context, a pod.Action) context.Context {
	switch a.Kind {
	case pod.StopContainer:
		w.cut(pod.Op{Kind: pod.PostStart, Object: a.Container})
		w.cut(pod.Op{Kind: pod.PreStop, Object: a.Container})
	case pod.PreStop, pod.PostStart:
		if a.Kind == pod.PreStop {
			w.cut(pod.Op{Kind: pod.PostStart, Object: a.Container})
		}
		ctx, w.cuts[a.Op()] = context.WithCancel(ctx)
	}
	return ctx
}

func (w *worker) cut(op pod.Op) {
	if cut := w.cuts[op]; cut != nil {
		cut()
	}
}
