package cri

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/shimapi"
)

// sweepSandboxes finds sandboxes that have an intent or a shim but no record: a
// daemon died while it made them, or containerd lost its data. They come into
// the picture as not ready, and what runs of them is ended before anybody sees
// them, so that there are never two copies of a pod.
func (n *Native) sweepSandboxes(ctx context.Context, known map[string]bool) {
	ids := map[string]bool{}
	entries, err := os.ReadDir(filepath.Join(n.cfg.RunDir, "ns"))
	if err != nil {
		n.log.Warn("cannot list sandbox directories", "err", err)
	}
	for _, e := range entries {
		ids[e.Name()] = true
	}
	shims, err := shimapi.ListShims(n.cfg.RunDir)
	if err != nil {
		n.log.Warn("cannot list shims", "err", err)
	}
	for _, id := range shims {
		ids[id] = true
	}
	for id := range ids {
		if known[id] || shimapi.CheckID(id) != nil {
			continue
		}
		if _, err := n.state.sandbox(id); err == nil {
			continue
		}
		if err := n.adoptOrphan(ctx, id); err != nil {
			n.log.Warn("cannot take over an orphaned sandbox yet", "sandbox", id, "err", err)
		}
	}
}

func (n *Native) adoptOrphan(ctx context.Context, id string) error {
	var gone bool
	n.state.edit(func() { _, gone = n.state.gone[id] })
	if gone {
		return nil
	}
	s, err := n.readIntent(id)
	if err != nil {
		// Without an intent there is nothing but the shim to end.
		if err := n.endShim(ctx, id, true); err != nil {
			return err
		}
		return os.RemoveAll(n.nsDir(id))
	}
	n.log.Warn("found a sandbox without a record", "sandbox", id, "podUID", s.uid)
	if err := n.killSandbox(ctx, s); err != nil {
		return err
	}
	s.visible, s.reason = true, reasonIncomplete
	s.commit(nil)
	n.state.addSandbox(s)
	n.cfg.Wake(s.uid)
	return nil
}

func (n *Native) readIntent(id string) (*sandbox, error) {
	data, err := os.ReadFile(filepath.Join(n.nsDir(id), "intent"))
	if err != nil {
		return nil, fmt.Errorf("read sandbox intent: %w", err)
	}
	var in intent
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, fmt.Errorf("read sandbox intent: %w", err)
	}
	s := newSandbox(id)
	s.config = &runtimeapi.PodSandboxConfig{}
	if err := json.Unmarshal(in.Config, s.config); err != nil {
		return nil, fmt.Errorf("read sandbox intent: %w", err)
	}
	s.uid, s.boot, s.netns, s.handler = types.UID(s.config.GetMetadata().GetUid()), in.Boot, in.Netns, in.Handler
	return s, nil
}

// killSandbox ends everything in the pod's cgroup that is not in the picture:
// containers whose records are lost.
func (n *Native) killSandbox(ctx context.Context, s *sandbox) error {
	ctx, cancel := n.call(ctx)
	defer cancel()
	parent := s.config.GetLinux().GetCgroupParent()
	dir := n.cgroupDir(parent)
	if dir == "" {
		return n.endShim(ctx, s.id, true)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list containers of a lost sandbox: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if _, err := n.state.container(containerOfCgroup(e.Name())); err == nil {
			continue
		}
		if err := n.killCgroup(ctx, filepath.Join(parent, e.Name())); err != nil {
			return err
		}
	}
	return n.endShim(ctx, s.id, true)
}
