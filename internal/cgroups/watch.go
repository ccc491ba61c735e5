package cgroups

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// watch is told by the kernel of writes to control files, so that nobody has
// to look for them. A directory that is removed leaves it by itself.
type watch struct {
	file *os.File

	mu      sync.Mutex
	targets map[int32]target
}

// target is a cgroup whose limits are watched: a pod's, or that of a class; or the
// containers of a pod.
type target struct {
	pod   *podCgroup
	below bool   // its containers
	class string // a path, if pod is nil
}

func newWatch() (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make an inotify instance: %w", err)
	}
	return &watch{file: os.NewFile(uintptr(fd), "inotify"), targets: map[int32]target{}}, nil
}

func (w *watch) close() { _ = w.file.Close() }

func (w *watch) add(dir string, to target, mask uint32) error {
	conn, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	w.mu.Lock() // its first event is not looked up before it is noted
	defer w.mu.Unlock()
	var werr error
	err = conn.Control(func(fd uintptr) {
		wd, err := unix.InotifyAddWatch(int(fd), dir, mask)
		if err != nil {
			werr = pathError("watch", dir, err)
			return
		}
		w.targets[int32(wd)] = to
	})
	return errors.Join(err, werr)
}

// startWatch has the classes, the pods, and from now on each new pod watched;
// nil ends that.
func (t *Tree) startWatch(w *watch) {
	t.mu.Lock()
	t.watch = w
	pods := t.podList()
	t.mu.Unlock()
	if w == nil {
		return
	}
	for _, class := range t.classTargets() {
		t.watchTarget(class)
	}
	for _, p := range pods {
		if !p.mu.TryLock() {
			continue // EnsurePod watches it at its end
		}
		if p.ensured && !p.gone {
			t.watchTarget(target{pod: p})
		}
		p.mu.Unlock()
	}
}

func (t *Tree) podList() []*podCgroup {
	pods := make([]*podCgroup, 0, len(t.pods))
	for _, p := range t.pods {
		pods = append(pods, p)
	}
	return pods
}

func (t *Tree) classTargets() []target {
	var out []target
	for _, qos := range classes() {
		out = append(out, target{class: t.class(qos)})
	}
	return out
}

// watchTarget watches a cgroup wherever it has limits.
func (t *Tree) watchTarget(to target) {
	cgroup := to.class
	if to.pod != nil {
		cgroup = to.pod.path
	}
	done := ""
	for _, c := range limited() {
		if dir := t.dir(c, cgroup); dir != "" && dir != done {
			done = dir
			t.watchDir(dir, to)
		}
	}
}

// watchDir watches one directory. Best effort: what is not watched is looked at
// every Config.RestoreEvery.
func (t *Tree) watchDir(dir string, to target) {
	t.mu.Lock()
	w := t.watch
	t.mu.Unlock()
	if w == nil {
		return
	}
	mask := uint32(unix.IN_MODIFY | unix.IN_ONLYDIR)
	if t.oomGroup && to.pod != nil && !to.below {
		mask |= unix.IN_CREATE // the cgroups of its containers
	}
	_ = w.add(dir, to, mask)
}

// settle is how long follow lets writes gather, and so how often it answers
// somebody who writes again and again.
const settle = 100 * time.Millisecond

// follow restores what the kernel tells of until the watch is closed.
func (t *Tree) follow(ctx context.Context, w *watch) {
	buf := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buf)
		if err != nil || pause(ctx, settle) != nil {
			return
		}
		written, overflow := w.events(buf[:n])
		if overflow {
			t.report(t.RestoreLimits(ctx))
			continue
		}
		for to := range written {
			t.report(t.restore(to))
		}
	}
}

// events parses inotify events into the cgroups of which a limit was written;
// overflow tells that the kernel dropped some.
func (w *watch) events(b []byte) (written map[target]bool, overflow bool) {
	written = map[target]bool{}
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(b) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(b))
		mask := binary.NativeEndian.Uint32(b[4:])
		size := int(binary.NativeEndian.Uint32(b[12:]))
		b = b[unix.SizeofInotifyEvent:]
		if size > len(b) {
			break
		}
		name, _, _ := strings.Cut(string(b[:size]), "\x00")
		b = b[size:]
		switch to, ok := w.targets[wd]; {
		case mask&unix.IN_Q_OVERFLOW != 0:
			overflow = true
		case mask&unix.IN_IGNORED != 0:
			delete(w.targets, wd)
		case ok && mask&unix.IN_CREATE != 0:
			to.below = true
			written[to] = true
		case ok && isLimit(name, to.below):
			written[to] = true
		}
	}
	return written, overflow
}

// isLimit tells whether a file is one that settings are for, or of a container the
// one that is kept; v2 tells of its counters by the same way.
func isLimit(name string, ofContainer bool) bool {
	if ofContainer {
		return name == oomGroupFile
	}
	switch name {
	case "cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.weight", "cpu.weight.nice", "cpu.max",
		"memory.limit_in_bytes", "memory.max", "pids.max":
		return true
	}
	return strings.HasPrefix(name, "hugetlb.") && (strings.HasSuffix(name, ".max") || strings.HasSuffix(name, ".limit_in_bytes"))
}
