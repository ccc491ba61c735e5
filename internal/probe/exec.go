package probe

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
)

// Exec runs a command in a container, with out taking both of its streams, and
// returns its exit code. When ctx ends first the process is killed, and the error
// has a method Killed() bool that tells so: a command that could not be run says
// nothing of its container.
type Exec interface {
	Exec(ctx context.Context, container string, args []string, out io.Writer) (int32, error)
}

// maxText is how much of an answer is read or kept (kubelet's maxReadLength).
const maxText = 10 << 10

// execProbe is a success when the command ends with 0 in time.
func execProbe(ctx context.Context, e Exec, t *Target) Outcome {
	limit := timeout(t.Probe)
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	args := expandStatic(t.Probe.Exec.Command, t.Spec)
	var out head
	code, err := e.Exec(bounded, t.Container, args, &out)
	var killed interface{ Killed() bool }
	switch {
	case err == nil && code == 0:
		return Outcome{Result: Success, Text: out.text()}
	case err == nil:
		return Outcome{Result: Failure, Text: out.text()}
	case errors.As(err, &killed) && killed.Killed() && ctx.Err() == nil:
		return failed("command timed out: %q timed out after %s", strings.Join(args, " "), limit)
	}
	return Outcome{Err: err}
}

// head keeps the first bytes that are written to it, and takes the rest. Both
// streams of a process write to it at once.
type head struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buf.Write(p[:min(len(p), maxText-h.buf.Len())])
	return len(p), nil
}

func (h *head) text() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.buf.String()
}

// expandStatic fills in the variables that the container's spec gives a value;
// a probe does not see those that come from elsewhere (kubelet).
func expandStatic(args []string, c *corev1.Container) []string {
	known := make(map[string]string, len(c.Env))
	for i := range c.Env {
		known[c.Env[i].Name] = c.Env[i].Value
	}
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = pod.Expand(a, known)
	}
	return out
}
