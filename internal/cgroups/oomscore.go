package cgroups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The kernel's bounds of oom_score_adj.
const (
	OOMScoreAdjMin = -1000
	OOMScoreAdjMax = 1000
)

// OOMScores gives processes their oom_score_adj within what this process may.
type OOMScores struct {
	proc string
	min  int
}

// NewOOMScores returns the scores that this process may give.
func NewOOMScores(proc string) (*OOMScores, error) {
	lowest, err := ProbeOOMScoreAdj()
	return &OOMScores{proc: or(proc, "/proc"), min: lowest}, err
}

// ProbeOOMScoreAdj returns the lowest oom_score_adj that this process may give
// to itself and so to its children: -1000 with CAP_SYS_RESOURCE, otherwise the
// lowest one that somebody with it gave to this process before. The kernel
// keeps that number to itself, so it is tried out on the own process for some
// microseconds. Call it once, at start, before there are children.
func ProbeOOMScoreAdj() (lowest int, err error) {
	return probeOOMScoreAdj("/proc/self/oom_score_adj", linux{}.Write)
}

func probeOOMScoreAdj(file string, write func(file, value string) error) (int, error) {
	own, err := readInt(file)
	if err != nil {
		return 0, fmt.Errorf("read own oom_score_adj: %w", err)
	}
	try := func(v int) (bool, error) {
		err := write(file, strconv.Itoa(v))
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			return false, nil
		}
		return err == nil, err
	}
	low, high := OOMScoreAdjMin, own // high is always allowed: a write of the own value is
	for low < high {
		mid := low + (high-low)/2
		ok, err := try(mid)
		if err != nil {
			return own, fmt.Errorf("try out oom_score_adj %d: %w", mid, err)
		}
		if ok {
			high = mid
		} else {
			low = mid + 1
		}
	}
	if err := write(file, strconv.Itoa(own)); err != nil {
		return high, fmt.Errorf("put own oom_score_adj back to %d: %w", own, err)
	}
	return high, nil
}

// ClampOOMScoreAdj returns the score nearest to want that this process may
// give; clamped tells that it is not want, which the caller warns of once.
func (s *OOMScores) ClampOOMScoreAdj(want int) (got int, clamped bool) {
	got = min(OOMScoreAdjMax, max(want, s.min))
	return got, got != want
}

// Min is the lowest score that this process may give.
func (s *OOMScores) Min() int { return s.min }

// SetOOMScoreAdj gives every process of a container the score, clamped, and
// returns how many had another one. An OCI runtime sets it for what it starts;
// a process may since have raised its own.
func (t *Tree) SetOOMScoreAdj(ctx context.Context, scores *OOMScores, parent, containerID string, want int) (changed int, err error) {
	if err := checkContainerID(containerID); err != nil {
		return 0, err
	}
	adj, _ := scores.ClampOOMScoreAdj(want)
	dirs := t.existing(t.ContainerCgroup(parent, containerID))
	done := map[int]bool{}
	for again := true; again; { // until a look shows no process that was not seen: forks inherit
		again = false
		if err := ctx.Err(); err != nil {
			return changed, err
		}
		pids, err := processes(dirs)
		if err != nil {
			return changed, fmt.Errorf("list processes of container %s: %w", containerID, err)
		}
		for _, pid := range pids {
			if done[pid] || pid == 0 {
				continue
			}
			done[pid], again = true, true
			was, err := scores.set(pid, adj)
			if err != nil {
				return changed, fmt.Errorf("set oom_score_adj of process %d: %w", pid, err)
			}
			if was != adj {
				changed++
			}
		}
	}
	return changed, nil
}

// set gives one process the score and returns what it had; a process that has
// ended had it.
func (s *OOMScores) set(pid, adj int) (was int, err error) {
	file := filepath.Join(s.proc, strconv.Itoa(pid), "oom_score_adj")
	was, err = readInt(file)
	if err == nil && was != adj {
		err = linux{}.Write(file, strconv.Itoa(adj))
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return adj, nil
	}
	return was, err
}

func readInt(file string) (int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}
