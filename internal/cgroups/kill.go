package cgroups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// KillPod kills every process below a pod's cgroup, wherever it is, and
// returns when the last one has ended. A pod without a cgroup has none. The
// cgroup itself stays as EnsurePod left it.
func (t *Tree) KillPod(ctx context.Context, uid types.UID) error {
	if t.checkUID(uid) != nil {
		return nil // nothing can be there
	}
	if p := t.known(uid); p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		defer t.putBack(p)
	}
	for _, qos := range classes() {
		if err := t.kill(ctx, t.existing(t.podPath(uid, qos))); err != nil {
			return fmt.Errorf("kill pod %s: %w", uid, err)
		}
	}
	return nil
}

// putBack undoes what a kill changed of a pod's limits; p.mu is held.
func (t *Tree) putBack(p *podCgroup) {
	if p.ensured && !p.gone {
		_, _ = t.apply(p.path, p.settings) // RestoreLimits finds what is left
	}
}

// KillContainer kills every process of a container, those too that left the
// container's init, and returns when the last one has ended.
func (t *Tree) KillContainer(ctx context.Context, parent, containerID string) error {
	if err := checkContainerID(containerID); err != nil {
		return err
	}
	if err := t.kill(ctx, t.existing(t.ContainerCgroup(parent, containerID))); err != nil {
		return fmt.Errorf("kill container %s: %w", containerID, err)
	}
	return nil
}

// checkContainerID sees to it that a container's cgroup is never its pod's.
func checkContainerID(id string) error {
	if id == "" || id == "." || id == ".." || strings.ContainsAny(id, "/\x00") {
		return fmt.Errorf("container id %q cannot name a cgroup", id)
	}
	return nil
}

// existing returns a cgroup's directories in all hierarchies, not only in those
// where limits are set: a process may have been left in any of them.
func (t *Tree) existing(cgroup string) []cgroupDir {
	var out []cgroupDir
	for _, h := range t.hierarchies {
		if dir := filepath.Join(h.Dir, cgroup); exists(dir) {
			out = append(out, cgroupDir{dir, h})
		}
	}
	return out
}

// cgroupDir is a cgroup's directory in one hierarchy.
type cgroupDir struct {
	path string
	Hierarchy
}

// kill ends all processes below the directories and waits for their end, for
// as long as ctx allows.
func (t *Tree) kill(ctx context.Context, dirs []cgroupDir) error {
	if len(dirs) == 0 {
		return nil
	}
	for {
		pids, err := processes(dirs)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			break
		}
		if err := spared(pids); err != nil {
			return err // before the first step: the kernel kills whoever is in there
		}
		byKernel, err := t.killAtOnce(dirs)
		if err != nil {
			return err
		}
		if err := t.endProcesses(ctx, dirs, pids, byKernel); err != nil {
			return err
		}
	}
	return t.awaitEmpty(ctx, dirs)
}

// spared finds the processes that are never killed: the agent and PID 1.
func spared(pids []int) error {
	for _, pid := range pids {
		if pid == 1 || pid == os.Getpid() {
			return fmt.Errorf("process %d is in it, which is not killed", pid)
		}
	}
	return nil
}

// killAtOnce lets the kernel kill the whole of a v2 cgroup, where it can. On
// v1 it stops forks and thaws what is frozen: a frozen process does not die.
func (t *Tree) killAtOnce(dirs []cgroupDir) (killed bool, err error) {
	for _, d := range dirs {
		switch {
		case d.Unified:
			file := filepath.Join(d.path, "cgroup.kill")
			if !exists(file) { // before Linux 5.14
				continue
			}
			switch err := t.kernel.Write(file, "1"); {
			case err == nil:
				killed = killed || t.V2()
			case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV): // removed meanwhile
			case errors.Is(err, unix.EOPNOTSUPP): // a container made it threaded
			default:
				return false, err
			}
		case d.has("pids"):
			// Best effort: without it a fork bomb is only outrun more slowly.
			_ = t.kernel.Write(filepath.Join(d.path, "pids.max"), "0")
		case d.has("freezer"):
			walk(d.path, t.thaw)
		}
	}
	return killed, nil
}

// thaw thaws one v1 cgroup if it is frozen.
func (t *Tree) thaw(dir string) {
	file := filepath.Join(dir, "freezer.state")
	if b, err := os.ReadFile(file); err == nil && string(b) != "THAWED\n" {
		_ = t.kernel.Write(file, "THAWED")
	}
}

// pidfds bounds how many ends are waited for at a time, and so the descriptors
// that the removal of one pod can hold.
const pidfds = 64

// endProcesses sends SIGKILL to the processes and waits for their end. A pid
// that belongs to another process by now is left alone: only while the cgroup
// still lists it is the descriptor, which was opened before, that of its member.
func (t *Tree) endProcesses(ctx context.Context, dirs []cgroupDir, pids []int, killed bool) error {
	for batch := range slices.Chunk(pids, pidfds) {
		if err := t.endBatch(ctx, dirs, batch, killed); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tree) endBatch(ctx context.Context, dirs []cgroupDir, batch []int, killed bool) error {
	fds := make(map[int]int, len(batch)) // pid to descriptor
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, pid := range batch {
		if pid == 0 {
			return errors.New("a process of another pid namespace is in it, which cannot be killed from here")
		}
		fd, err := unix.PidfdOpen(pid, 0)
		switch {
		case err == nil:
			fds[pid] = fd
		case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL): // ended, or not a leader
		default:
			return fmt.Errorf("open process %d: %w", pid, err)
		}
	}
	still, err := processes(dirs)
	if err != nil {
		return err
	}
	for pid, fd := range fds {
		if !slices.Contains(still, pid) {
			unix.Close(fd)
			delete(fds, pid)
			continue
		}
		if killed {
			continue
		}
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
	for pid, fd := range fds {
		if err := awaitFile(ctx, fd, unix.POLLIN); err != nil {
			return fmt.Errorf("%s does not end: %w", describe(t.proc, pid), err)
		}
	}
	return nil
}

// awaitEmpty waits until the kernel no longer counts a process in the
// directories: an ended one may be in its last steps. v2 tells by an event.
// v1 has none; there the removal that follows is tried again.
func (t *Tree) awaitEmpty(ctx context.Context, dirs []cgroupDir) error {
	for _, d := range dirs {
		if !d.Unified {
			continue
		}
		if err := awaitUnpopulated(ctx, filepath.Join(d.path, "cgroup.events")); err != nil {
			return err
		}
	}
	return nil
}

func awaitUnpopulated(ctx context.Context, file string) error {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 256)
	for {
		n, err := f.ReadAt(buf, 0)
		if errors.Is(err, unix.ENODEV) {
			return nil // removed
		}
		if n == 0 && err != nil {
			return err
		}
		events, err := parseFlatKeyed(buf[:n])
		if err != nil {
			return fmt.Errorf("parse %s: %w", file, err)
		}
		if events["populated"] == 0 {
			return nil
		}
		// SyscallConn would hand the descriptor to the poller; Fd is fine for
		// a file that is never in non-blocking mode.
		if err := awaitFile(ctx, int(f.Fd()), unix.POLLPRI); err != nil {
			return fmt.Errorf("wait for the last process of cgroup %s: %w", filepath.Dir(file), err)
		}
	}
}

// processes lists the processes in and below the directories, each once.
func processes(dirs []cgroupDir) ([]int, error) {
	seen := map[int]bool{}
	var first error
	for _, d := range dirs {
		walk(d.path, func(dir string) {
			b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			switch {
			case err == nil:
			case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENODEV): // removed meanwhile
				return
			case errors.Is(err, unix.EOPNOTSUPP): // a threaded cgroup: its domain above lists the processes
				return
			default:
				first = cmpErr(first, err)
				return
			}
			pids, err := parsePIDs(b)
			if err != nil {
				first = cmpErr(first, fmt.Errorf("parse %s/cgroup.procs: %w", dir, err))
			}
			for _, pid := range pids {
				seen[pid] = true
			}
		})
	}
	if first != nil {
		return nil, first
	}
	pids := make([]int, 0, len(seen))
	for pid := range seen {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids, nil
}

func cmpErr(first, next error) error {
	if first != nil {
		return first
	}
	return next
}

// walk calls f for a directory and those below it, parents first. What
// vanishes meanwhile is skipped.
func walk(dir string, f func(dir string)) {
	f(dir)
	for _, child := range children(dir) {
		walk(filepath.Join(dir, child), f)
	}
}

func children(dir string) []string {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	entries, _ := d.ReadDir(-1)
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out
}

// pause waits a little where the kernel has no event to wait for.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
