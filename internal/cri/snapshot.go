package cri

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
	"nodeagent/internal/shimapi"
)

// Snapshot reads what containerd's records, the run directory and the kernel
// say of every pod. It needs no Run and changes nothing: no exit record is
// moved, no task deleted, no orphan ended; so it is for the command line, with
// or without a daemon.
func (n *Native) Snapshot(ctx context.Context) ([]pod.RuntimeState, error) {
	records, err := n.list(ctx)
	if err != nil {
		return nil, err
	}
	byPod := map[types.UID]*pod.RuntimeState{}
	of := func(uid types.UID, namespace, name string) *pod.RuntimeState {
		if byPod[uid] == nil {
			byPod[uid] = &pod.RuntimeState{UID: uid, Namespace: namespace, Name: name}
		}
		return byPod[uid]
	}
	for _, r := range records {
		if r.Labels[labelKind] == kindSandbox {
			s, err := sandboxOf(r)
			if err != nil {
				continue // the daemon reports it; there is nothing to show
			}
			s.reason = n.readReason(s)
			meta := s.config.GetMetadata()
			state := of(s.uid, meta.GetNamespace(), meta.GetName())
			state.Sandboxes = append(state.Sandboxes, s.observe())
			continue
		}
		c := containerOf(r)
		if c.kind != kindContainer {
			continue
		}
		n.readState(c)
		state := of(c.uid, c.namespace, c.podName)
		state.Containers = append(state.Containers, c.info)
	}
	return sorted(byPod), nil
}

// readReason says why a sandbox is not ready, "" if it is.
func (n *Native) readReason(s *sandbox) string {
	switch {
	case s.boot != n.boot:
		return reasonRebooted
	case s.netns != "" && len(s.addrs) == 0:
		return reasonIncomplete
	case !s.stopped && !n.pinsOf(s).intact():
		return reasonNetworkLost
	}
	return s.reason
}

// readState finds out how far a container is, from mark, kernel and exit record.
func (n *Native) readState(c *container) {
	if c.info.State == pod.ContainerExited {
		return
	}
	mark, started := n.readStarted(c.id)
	if started && c.boot == n.boot && member(int(mark.Pid), c.id) {
		c.info.State, c.info.Pid, c.info.Started = pod.ContainerRunning, mark.Pid, mark.At
		return
	}
	if r, err := shimapi.ReadExit(n.cfg.RunDir, c.id); err == nil {
		c.setExit(fromRecord(r))
		return
	}
	if started || c.boot != n.boot {
		c.info.Started = mark.At
		c.setExit(exitLabel{Code: killedCode, Reason: pod.ReasonContainerStatusUnknown})
	}
}

func sorted(byPod map[types.UID]*pod.RuntimeState) []pod.RuntimeState {
	all := make([]pod.RuntimeState, 0, len(byPod))
	for _, s := range byPod {
		slices.SortFunc(s.Containers, func(a, b pod.Container) int { return a.Created.Compare(b.Created) })
		slices.SortFunc(s.Sandboxes, func(a, b pod.Sandbox) int { return int(a.Attempt) - int(b.Attempt) })
		all = append(all, *s)
	}
	slices.SortFunc(all, func(a, b pod.RuntimeState) int {
		return strings.Compare(a.Namespace+"/"+a.Name+"/"+string(a.UID), b.Namespace+"/"+b.Name+"/"+string(b.UID))
	})
	return all
}

// Close ends the connection of a Native that never Runs.
func (n *Native) Close() error { return n.client.Close() }
