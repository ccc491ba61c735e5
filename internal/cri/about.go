package cri

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"nodeagent/internal/hostcheck"
)

// About is what containerd says of itself and of what it would start.
type About struct {
	Version      string
	Snapshotters map[string]Snapshotter
	CRI          bool // the CRI plugin runs
	CRIPods      int  // sandboxes that it keeps in our namespace
	// Shim says why containerd cannot use our shim, and Runc why the shim cannot
	// use the OCI runtime, or that of a handler; nil where it can.
	Shim, Runc error
	Features   *features.Features // of the OCI runtime, nil where it does not say
}

// Snapshotter is one of containerd's.
type Snapshotter struct {
	Root string // where its layers are, if it says
	Err  string // why it was left out
}

// criSandboxes are the records of the CRI plugin's pods.
const criSandboxes = `labels."io.cri-containerd.kind"==sandbox`

// About asks containerd what it is. It changes nothing and needs no Run. Of a
// containerd that is too old only the version is known.
func (n *Native) About(ctx context.Context) (About, error) {
	v, err := n.client.Version(ctx)
	if err != nil {
		return About{}, fmt.Errorf("ask containerd for its version: %w", err)
	}
	a := About{Version: v.Version, Snapshotters: map[string]Snapshotter{}}
	if hostcheck.OldContainerd(a.Version) != "" {
		return a, nil
	}
	all, err := n.client.IntrospectionService().Plugins(ctx)
	if err != nil {
		return a, fmt.Errorf("ask containerd for its plugins: %w", err)
	}
	for _, p := range all.GetPlugins() {
		switch kind := p.GetType(); {
		case kind == string(plugins.SnapshotPlugin):
			a.Snapshotters[p.GetID()] = Snapshotter{p.GetExports()["root"], p.GetInitErr().GetMessage()}
		case p.GetID() == "cri" && p.GetInitErr() == nil && strings.HasSuffix(kind, ".grpc.v1"):
			a.CRI = true
		}
	}
	pods, err := n.client.ContainerService().List(ctx, criSandboxes)
	if err != nil {
		return a, fmt.Errorf("list sandboxes of the CRI plugin: %w", err)
	}
	a.CRIPods = len(pods)
	a.Shim, a.Runc, a.Features = n.aboutRuntime(ctx, Handler{n.cfg.Runtime, n.cfg.RuncBinary})
	if a.Shim != nil || a.Runc != nil {
		return a, nil // one cause is enough
	}
	for _, name := range slices.Sorted(maps.Keys(n.cfg.Handlers)) {
		if shim, runc, _ := n.aboutRuntime(ctx, n.cfg.Handlers[name]); shim != nil || runc != nil {
			a.Runc = errors.Join(a.Runc, fmt.Errorf("runtime handler %q: %w", name, cmp.Or(runc, shim)))
		}
	}
	return a, nil
}

// aboutRuntime lets containerd start the shim for a word about itself and its
// runtime: no other look sees containerd's own PATH.
func (n *Native) aboutRuntime(ctx context.Context, h Handler) (shim, runc error, f *features.Features) {
	info, err := n.client.RuntimeInfo(ctx, h.Runtime, &options.Options{BinaryName: h.Binary})
	switch {
	case err == nil:
		f, _ = info.Features.(*features.Features)
		return nil, nil, f
	case strings.Contains(err.Error(), "look up the path of"): // the shim's own words
		return nil, err, nil
	}
	return err, nil, nil
}
