package soak

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// fault injects one fault and takes it away again.
func (s *soak) fault(ctx context.Context) {
	faults := []struct {
		name string
		do   func(context.Context) error
	}{
		{"daemon killed", func(ctx context.Context) error { return s.agent.Restart(ctx) }},
		{"daemon stopped for 2 s", func(ctx context.Context) error {
			if err := s.agent.Stop(); err != nil {
				return err
			}
			wait(ctx, 2*time.Second)
			return s.agent.Cont()
		}},
		{"containerd killed", s.bed.Restart},
		{"containerd stopped for 2 s", func(ctx context.Context) error {
			if err := s.bed.Stop(); err != nil {
				return err
			}
			wait(ctx, 2*time.Second)
			return s.bed.Cont()
		}},
		{"both killed, containerd first back", func(ctx context.Context) error {
			if err := s.agent.Kill(); err != nil {
				return err
			}
			if err := s.bed.Restart(ctx); err != nil {
				return err
			}
			return s.agent.Start(ctx)
		}},
		{"a shim killed", s.killShim},
	}
	f := faults[s.dice.IntN(len(faults))]
	s.faults[f.name]++
	bounded, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := f.do(bounded); err != nil {
		s.t.Fatalf("inject the fault %q: %v", f.name, err)
	}
}

// killShim kills one of the bed's shims, if there is one.
func (s *soak) killShim(context.Context) error {
	for pid := range s.bed.Processes() {
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if strings.Contains(exe, "/nodeagent-shim") {
			return ignoreGone(unix.Kill(pid, unix.SIGKILL))
		}
	}
	return nil
}

func ignoreGone(err error) error {
	if err == unix.ESRCH {
		return nil
	}
	return err
}
