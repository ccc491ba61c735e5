package hook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nodeagent/internal/failpoint"
	"nodeagent/internal/pod"
)

// Exec runs a command in a running container until it ends or ctx does, and then kills
// it.
type Exec func(ctx context.Context, container string, command []string) (exitCode int32, err error)

// Hooks runs hooks.
type Hooks struct{ exec Exec }

// New returns what runs hooks; commands are run by exec.
func New(exec Exec) (*Hooks, error) {
	if exec == nil {
		return nil, errors.New("configure hooks: nothing runs commands")
	}
	return &Hooks{exec: exec}, nil
}

// Run runs the hook to its end. nil: it was successful; a hook by httpGet is when
// anything answered at all, as kubelet has it.
func (h *Hooks) Run(ctx context.Context, hook pod.Hook) error {
	if err := failpoint.At(failpoint.HookRunBefore); err != nil {
		return err
	}
	if err := h.run(ctx, hook); err != nil {
		return err
	}
	return failpoint.At(failpoint.HookRunAfter)
}

func (h *Hooks) run(ctx context.Context, hook pod.Hook) error {
	switch handler := hook.Handler; {
	case handler.Exec != nil:
		code, err := h.exec(ctx, hook.Container, handler.Exec.Command)
		if err == nil && code != 0 {
			err = fmt.Errorf("the command exited with %d", code)
		}
		return err
	case handler.HTTPGet != nil:
		return get(ctx, handler.HTTPGet, hook.Addr)
	case handler.Sleep != nil:
		return sleep(ctx, pod.Seconds(handler.Sleep.Seconds))
	case handler.TCPSocket != nil:
		return errors.New("a hook by tcpSocket is not supported, as in kubelet: use exec, httpGet or sleep")
	}
	return errors.New("the hook says neither exec nor httpGet nor sleep")
}

// sleep is what a hook asked for; it ends with the container, whose end ends ctx.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return errors.New("the container ended before the sleep did")
	}
}
