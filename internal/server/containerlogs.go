package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"nodeagent/internal/logs"
)

// containerLogs copies the log of one run of a container. Errors before the first
// byte are told with kubelet's codes and words, which kubectl and its users know;
// one after it breaks the connection, so that half a log is not taken for a whole.
func (a *NodeAPI) containerLogs(w http.ResponseWriter, r *http.Request, args []string) {
	o, err := parseLogQuery(r.URL.Query(), time.Now())
	if err != nil {
		code := http.StatusBadRequest
		if bad := (*queryError)(nil); errors.As(err, &bad) && bad.forbidden {
			code = http.StatusUnprocessableEntity
		}
		http.Error(w, err.Error(), code)
		return
	}
	p, code, err := a.findPod(args[0], args[1], args[2])
	if err != nil {
		http.Error(w, err.Error(), code)
		return
	}
	id, err := loggedRun(p, args[2], o.previous)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	run, ok := a.container(p.UID, id)
	if !ok || run.LogPath == "" {
		http.Error(w, fmt.Sprintf("container %q in pod %q has no log any more", args[2], p.Name), http.StatusNotFound)
		return
	}
	if o.read.Follow {
		ended, stop := a.followers.follow(p.UID, id)
		defer stop()
		o.read.Ended = ended
	}
	a.copyLog(w, r, run.LogPath, o.read)
}

func (a *NodeAPI) copyLog(w http.ResponseWriter, r *http.Request, path string, o logs.ReadOptions) {
	out := &logWriter{w: w, control: http.NewResponseController(w), each: a.limits.written, flush: o.Follow}
	o.Opened = func() {
		if o.Follow {
			_, _ = out.Write(nil) // who waits for a line sees that there is a log
		}
	}
	err := logs.Read(r.Context(), path, o, out, out)
	_ = out.control.SetWriteDeadline(time.Now().Add(out.each)) // what is left in buffers
	switch {
	case err == nil:
		return
	case errors.Is(err, context.Canceled), out.failed:
		panic(http.ErrAbortHandler) // the client is gone, or the daemon ends
	case out.begun:
		a.cfg.Logger.Warn("break off a log", "path", path, "err", err)
		panic(http.ErrAbortHandler)
	case errors.Is(err, fs.ErrNotExist):
		http.Error(w, "the log was removed", http.StatusNotFound)
	case errors.Is(err, unix.EMFILE):
		a.cfg.Logger.Warn("cannot follow a log: raise fs.inotify.max_user_instances", "path", path, "err", err)
		http.Error(w, "too many logs are followed on this node: raise its sysctl fs.inotify.max_user_instances", http.StatusServiceUnavailable)
	default: // a link, or no file: somebody put it there
		a.cfg.Logger.Warn("cannot read a log", "path", path, "err", err)
		http.Error(w, "the log cannot be read: the node's own log says why", http.StatusInternalServerError)
	}
}

// findPod finds a pod that has such a container. Of two of one name it is the one
// that is not being deleted, or the younger.
func (a *NodeAPI) findPod(namespace, name, container string) (*corev1.Pod, int, error) {
	if len(validation.IsDNS1123Label(container)) > 0 {
		return nil, http.StatusBadRequest, errNoName
	}
	found, code, err := a.podNamed(namespace, name, "")
	if err != nil {
		return nil, code, err
	}
	if !hasContainer(&found.Spec, container) {
		return nil, http.StatusNotFound, fmt.Errorf("container %q not found in pod %q", container, name)
	}
	return found, 0, nil
}

var errNoName = errors.New("no pod or container can have such a name")

// podNamed finds a pod by its name and, where one is given, its UID.
func (a *NodeAPI) podNamed(namespace, name, uid string) (*corev1.Pod, int, error) {
	if len(validation.IsDNS1123Label(namespace))+len(validation.IsDNS1123Subdomain(name)) > 0 {
		return nil, http.StatusBadRequest, errNoName
	}
	var found *corev1.Pod
	for _, p := range a.cfg.Pods.Pods() {
		if p.Namespace == namespace && p.Name == name && (uid == "" || string(p.UID) == uid) && (found == nil || newer(p, found)) {
			found = p
		}
	}
	if found == nil {
		return nil, http.StatusNotFound, fmt.Errorf("pod %q does not exist", name)
	}
	return found, 0, nil
}

func newer(p, q *corev1.Pod) bool {
	if (p.DeletionTimestamp == nil) != (q.DeletionTimestamp == nil) {
		return p.DeletionTimestamp == nil
	}
	return q.CreationTimestamp.Before(&p.CreationTimestamp)
}

func hasContainer(spec *corev1.PodSpec, name string) bool {
	for _, some := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range some {
			if some[i].Name == name {
				return true
			}
		}
	}
	for i := range spec.EphemeralContainers {
		if spec.EphemeralContainers[i].Name == name {
			return true
		}
	}
	return false
}

// loggedRun is the id of the run whose log is meant: the one that runs or ran
// last, or the one before (kubelet: validateContainerLogStatus).
func loggedRun(p *corev1.Pod, name string, previous bool) (string, error) {
	var s *corev1.ContainerStatus
	for _, one := range statuses(p) {
		if one.Name == name {
			s = &one
			break
		}
	}
	if s == nil {
		return "", fmt.Errorf("container %q in pod %q is not available", name, p.Name)
	}
	last := ""
	if s.LastTerminationState.Terminated != nil {
		last = s.LastTerminationState.Terminated.ContainerID
	}
	id, why := last, fmt.Sprintf("container %q in pod %q is terminated", name, p.Name)
	switch {
	case previous:
		why = fmt.Sprintf("previous terminated container %q in pod %q not found", name, p.Name)
	case s.State.Running != nil:
		id = s.ContainerID
	case s.State.Terminated != nil && s.State.Terminated.ContainerID != "":
		id = s.State.Terminated.ContainerID
	case s.State.Terminated == nil && s.LastTerminationState.Terminated == nil:
		why = fmt.Sprintf("container %q in pod %q is waiting to start: %s", name, p.Name, waitsFor(s.State.Waiting))
	}
	if id == "" {
		return "", errors.New(why)
	}
	_, id, _ = strings.Cut(id, "://")
	return id, nil
}

func waitsFor(w *corev1.ContainerStateWaiting) string {
	switch {
	case w == nil || w.Reason == "":
		return "no logs yet"
	case w.Reason == "ErrImagePull":
		return "image can't be pulled"
	case w.Reason == "ImagePullBackOff":
		return "trying and failing to pull image"
	}
	return w.Reason
}

// logWriter gives each piece its time to be taken, and begins the answer with the
// first one.
type logWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	each    time.Duration
	flush   bool // a line is worth nothing in a buffer
	begun   bool
	failed  bool // the client takes nothing any more
}

// Write implements io.Writer.
func (l *logWriter) Write(p []byte) (int, error) {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		l.w.Header().Set("X-Content-Type-Options", "nosniff")
	}
	_ = l.control.SetWriteDeadline(time.Now().Add(l.each))
	n, err := l.w.Write(p)
	if err == nil && l.flush {
		err = l.control.Flush()
		// The next line may come in hours, and HTTP/2 ends a stream whose deadline
		// passes although nothing is written.
		_ = l.control.SetWriteDeadline(time.Time{})
	}
	l.failed = err != nil
	return n, err
}
