package cgroups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
)

// EnsureNode makes kubepods with the limits of all pods together (see
// pod.NodeResources), and the burstable and best-effort classes in it with
// their shares. It is idempotent, and comes before the first EnsurePod.
//
// It fails when a required controller is missing, before it makes anything.
// The pods that it finds in the tree count for the shares of the burstable
// class until they are asked for or removed, so that a restart takes nothing
// from running pods.
func (t *Tree) EnsureNode(ctx context.Context, node pod.Resources) error {
	if missing := t.missing(); len(missing) > 0 {
		return fmt.Errorf("make cgroup %s: the kernel has no controller %s below %s",
			t.kubepods(), strings.Join(missing, ", "), t.mountpoint)
	}
	if err := t.enableDownTo(t.kubepods()); err != nil {
		return err
	}
	t.mu.Lock()
	t.node = &node
	t.mu.Unlock()
	if err := t.ensureClass(ctx, t.kubepods(), node); err != nil {
		return err
	}
	if err := t.seed(ctx); err != nil {
		return err
	}
	if err := t.ensureClass(ctx, t.class(corev1.PodQOSBestEffort), pod.BestEffortResources()); err != nil {
		return err
	}
	t.classMu.Lock()
	defer t.classMu.Unlock()
	t.mu.Lock()
	t.burstable = t.sumBurstable()
	burstable := t.burstable
	t.mu.Unlock()
	return t.ensureClass(ctx, t.class(corev1.PodQOSBurstable), pod.BurstableResources(burstable))
}

func (t *Tree) ensureClass(ctx context.Context, cgroup string, r pod.Resources) error {
	settings := t.settingsOf(r)
	if t.systemd != nil {
		if err := t.startSlice(ctx, cgroup, r); err != nil {
			return err
		}
	}
	if _, err := t.mkdir(cgroup, t.mkdirAll); err != nil {
		return err
	}
	if err := t.enable(cgroup); err != nil {
		return err
	}
	t.watchTarget(target{class: cgroup}) // anew, if somebody had removed it
	changes, err := t.apply(cgroup, settings)
	for _, c := range changes {
		if c.Err != nil && !errors.Is(c.Err, unix.EBUSY) {
			return err
		}
	}
	// More memory is in use than the limit allows. That is no reason not to
	// run pods: RestoreLimits goes on trying.
	if errors.Is(err, unix.EBUSY) {
		return nil
	}
	return err
}

// limited are the controllers in which a pod and a class have limits of ours.
// In v1's other hierarchies the OCI runtime makes the pod's directory on the
// way to the container's.
func limited() []string { return []string{"cpu", "memory", "pids", "hugetlb"} }

// mkdir makes a cgroup in the hierarchies in which it has limits; fresh tells
// that it was in none of them.
func (t *Tree) mkdir(cgroup string, mkdir func(dir string) error) (fresh bool, err error) {
	fresh = true
	done := ""
	for _, c := range limited() {
		dir := t.dir(c, cgroup)
		if dir == "" || dir == done {
			continue
		}
		done = dir // v2 has one directory for all, v1 mounts cpu with cpuacct at most
		switch err := mkdir(dir); {
		case err == nil:
		case errors.Is(err, unix.EEXIST):
			fresh = false
		default:
			return false, fmt.Errorf("make cgroup %s: %w", cgroup, err)
		}
	}
	return fresh, nil
}

// mkdirAll makes a directory and, where they are missing, its parents; EEXIST
// when it is there.
func (t *Tree) mkdirAll(dir string) error {
	err := t.kernel.Mkdir(dir)
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	if parent := filepath.Dir(dir); parent != t.mountpoint && len(parent) > len(t.mountpoint) {
		if err := t.mkdirAll(parent); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return t.kernel.Mkdir(dir)
}

// wanted are the controllers that containers get on v2, as far as the kernel
// has them.
func wanted() []string { return []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids"} }

// enableDownTo enables the controllers on v2 from the root of the hierarchy
// down, making the cgroups above the given one.
func (t *Tree) enableDownTo(cgroup string) error {
	if !t.V2() {
		return nil
	}
	have := t.rootControllers()
	enabled := slices.DeleteFunc(wanted(), func(c string) bool { return !slices.Contains(have, c) })
	t.mu.Lock()
	t.enabled = enabled
	t.mu.Unlock()
	at := "/"
	for _, name := range strings.Split(strings.Trim(path.Dir(cgroup), "/"), "/") {
		if err := t.enableAt(at); err != nil {
			return err
		}
		if name == "" {
			break
		}
		at = path.Join(at, name)
		if err := t.kernel.Mkdir(filepath.Join(t.unified, at)); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make cgroup %s: %w", at, err)
		}
	}
	return t.enableAt(path.Dir(cgroup))
}

// enable gives a v2 cgroup's children the controllers that they lack.
func (t *Tree) enable(cgroup string) error {
	if !t.V2() {
		return nil
	}
	if t.systemd == nil {
		return t.enableAt(cgroup)
	}
	// At each start of a slice systemd takes away, level by level, what it
	// does not need itself; so every level above is looked at as well, and once
	// more if a slice was started beside.
	var err error
	for range 5 {
		if err = t.enableFromRoot(cgroup); !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return err
}

func (t *Tree) enableFromRoot(cgroup string) error {
	at := "/"
	for name := range strings.SplitSeq(strings.Trim(cgroup, "/"), "/") {
		if err := t.enableAt(at); err != nil {
			return err
		}
		at = path.Join(at, name)
	}
	return t.enableAt(at)
}

func (t *Tree) enableAt(cgroup string) error {
	file := filepath.Join(t.unified, cgroup, "cgroup.subtree_control")
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read controllers of cgroup %s: %w", cgroup, err)
	}
	return t.enableBeyond(cgroup, strings.Fields(string(b)))
}

func (t *Tree) enableBeyond(cgroup string, on []string) error {
	t.mu.Lock()
	enabled := t.enabled
	t.mu.Unlock()
	var add []string
	for _, c := range enabled {
		if !slices.Contains(on, c) {
			add = append(add, "+"+c)
		}
	}
	if len(add) == 0 {
		return nil
	}
	file := filepath.Join(t.unified, cgroup, "cgroup.subtree_control")
	if err := t.kernel.Write(file, strings.Join(add, " ")); err != nil {
		return fmt.Errorf("enable controllers below cgroup %s: %w", cgroup, err)
	}
	return nil
}
