package bed

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
)

// Processes returns every process of the bed, containers' included, with its
// owner mark ("pid starttime"): equal marks mean that it was never restarted.
func (b *Bed) Processes() map[int]string {
	procs := map[int]string{}
	all, _, err := hierarchies()
	if err != nil {
		return procs
	}
	for _, h := range all {
		for _, name := range cgroupNames(b.id) {
			for _, pid := range pidsBelow(filepath.Join(h, name)) {
				if mark, err := owner(pid); err == nil {
					procs[pid] = mark
				}
			}
		}
	}
	return procs
}

// Running returns the containers whose init lives, by id, with pid and start
// time: an untouched container keeps them.
func (b *Bed) Running(ctx context.Context) (map[string]string, error) {
	c, err := b.Dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	s := Snapshot{}
	if err := snapNamespace(namespaces.WithNamespace(ctx, Namespace), c, Namespace, s); err != nil {
		return nil, err
	}
	running := map[string]string{}
	for k, v := range maps.All(s) {
		id, ok := strings.CutPrefix(k, "task "+Namespace+"/")
		if pid, err := strconv.Atoi(v); ok && err == nil {
			if mark, err := owner(pid); err == nil {
				running[id] = mark
			}
		}
	}
	return running, nil
}

// PinDir is the directory of a private bed's pinned network namespaces.
func (b *Bed) PinDir() string { return filepath.Join("/proc", b.seen(), "root/run/netns") }

// Pause waits for d or the end of ctx: for tests that act at any moment, not for
// those that wait for something.
func Pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// WaitCatches waits until every process of the bed that runs the program, or is
// about to, catches the signal: an init of a PID namespace that does not is deaf
// to it, and a program's first milliseconds do not.
func (b *Bed) WaitCatches(ctx context.Context, program string, signal int) error {
	for pid := range b.Processes() {
		for !catches(pid, program, signal) {
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for process %d to catch signal %d: %w", pid, signal, ctx.Err())
			case <-time.After(time.Millisecond):
			}
		}
	}
	return nil
}

// catches says yes of a process that is gone or runs something else, and no of a
// container's process that is still runc.
func catches(pid int, program string, signal int) bool {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return true
	}
	name := strings.TrimSpace(string(comm))
	if strings.HasPrefix(name, "runc:[") {
		return false
	}
	if name != program {
		return true
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(b), "SigCgt:\t")
	hex, _, _ := strings.Cut(rest, "\n")
	caught, err := strconv.ParseUint(hex, 16, 64)
	return err != nil || caught&(1<<(signal-1)) != 0
}
