package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const maxSignal = 64

// signalMember sends sig to pid if that process is in a cgroup named for the
// container. The pidfd is opened before the check, so that a number used anew
// meanwhile cannot be hit.
func signalMember(pid int, container string, sig unix.Signal) bool {
	if pid <= 1 {
		return false
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || !strings.Contains(string(groups), container) {
		return false
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0) == nil
}

// member tells whether pid is a live process in a cgroup named for the
// container.
func member(pid int, container string) bool {
	if pid <= 1 {
		return false
	}
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || !strings.Contains(string(groups), container) {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	i := strings.LastIndexByte(string(stat), ')')
	return i > 0 && i+2 < len(stat) && stat[i+2] != 'Z' && stat[i+2] != 'X'
}

// killCgroup sends SIGKILL to every process in the cgroup at path and below,
// until there is none. It only reads cgroupfs.
func (n *Native) killCgroup(ctx context.Context, path string) error {
	if path == "" || path == "/" || !filepath.IsAbs(path) {
		return nil
	}
	dir := n.cgroupDir(path)
	if dir == "" {
		return nil
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		pids, err := cgroupPids(dir)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			killPid(pid, path)
		}
		// The kernel tells nobody on v1 that a cgroup is empty.
		if !sleep(ctx, wait) {
			return fmt.Errorf("kill processes of cgroup: %w", context.Cause(ctx))
		}
	}
}

func killPid(pid int, cgroup string) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err == nil && strings.Contains(string(groups), cgroup) {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
}

// cgroupDir finds the cgroup in the first hierarchy that has it.
func (n *Native) cgroupDir(path string) string {
	for _, hierarchy := range []string{"", "pids", "memory", "systemd", "cpu", "freezer", "unified"} {
		dir := filepath.Join(n.cfg.CgroupRoot, hierarchy, path)
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			return dir
		}
	}
	return ""
}

func cgroupPids(dir string) ([]int, error) {
	var pids []int
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil || !d.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(p, "cgroup.procs"))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil
		}
		if err != nil {
			return err
		}
		for f := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 1 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list processes of cgroup: %w", err)
	}
	return pids, nil
}

// containerOfCgroup is the inverse of the last element of cgroupPath.
func containerOfCgroup(name string) string {
	name = strings.TrimSuffix(name, ".scope")
	return strings.TrimPrefix(name, "cri-containerd-")
}
