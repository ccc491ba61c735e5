package cri

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/anypb"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/failpoint"
	"nodeagent/internal/mkdir"
)

// RunPodSandbox makes a sandbox: namespaces, /dev/shm, network, record. It
// returns when the sandbox can be used; the record may be on its way to the
// disk then, and StartContainer waits for it.
//
// Before the first resource is made, an intent with the configuration lies in
// the run directory. Resources and intent end with the boot, so it is exactly
// as durable as what it answers for; the record needs one write only, which
// already knows the addresses.
//
// handler names one of Config.Handlers, "" the default. The sandbox keeps it, so
// that all its containers run by the same.
func (n *Native) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	s, err := n.newSandbox(config, handler)
	if err != nil {
		return "", err
	}
	n.state.addSandbox(s)
	if err := n.makeSandbox(ctx, s); err != nil {
		s.commit(err)
		n.undoSandbox(ctx, s)
		return "", fmt.Errorf("run sandbox: %w", err)
	}
	n.state.edit(func() { s.visible = true })
	n.settles.run(func() { n.writeRecord(context.WithoutCancel(ctx), s) })
	return s.id, nil
}

func (n *Native) newSandbox(config *runtimeapi.PodSandboxConfig, handler string) (*sandbox, error) {
	if _, err := n.handler(handler); err != nil {
		return nil, fmt.Errorf("run sandbox: %w", err)
	}
	meta := config.GetMetadata()
	if meta.GetUid() == "" || meta.GetName() == "" || meta.GetNamespace() == "" {
		return nil, errors.New("run sandbox: uid, name and namespace of the pod must be set")
	}
	s := newSandbox(newID())
	s.config, s.handler, s.uid, s.boot, s.created = config, handler, types.UID(meta.GetUid()), n.boot, time.Now()
	if !namespacesOf(config).hostNetwork() {
		s.netns = filepath.Join(n.cfg.NetnsDir, netnsName())
	}
	return s, nil
}

// netnsName has the form cni-<uuid>, by which CNI daemons know a pod's.
func netnsName() string {
	id := newID()
	return fmt.Sprintf("cni-%s-%s-%s-%s-%s", id[:8], id[8:12], id[12:16], id[16:20], id[20:32])
}

func (n *Native) makeSandbox(ctx context.Context, s *sandbox) error {
	if err := n.writeIntent(s); err != nil {
		return err
	}
	if err := n.pinsOf(s).make(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	g, gctx := errgroup.WithContext(ctx)
	if s.netns != "" {
		g.Go(func() error { return ofNetwork(n.setupNetwork(gctx, s)) })
	}
	if namespacesOf(s.config).sharePID() {
		g.Go(func() error { return n.startInit(gctx, s) })
	}
	return g.Wait()
}

// intent is what answers for a sandbox's resources until its record is written.
type intent struct {
	Boot  string `json:"boot"`
	Netns string `json:"netns,omitempty"`
	// Handler is that of the sandbox's containers; "" the default.
	Handler string          `json:"handler,omitempty"`
	Config  json.RawMessage `json:"config"`
}

func (n *Native) writeIntent(s *sandbox) error {
	if err := failpoint.At(failpoint.CRISandboxIntentBefore); err != nil {
		return err
	}
	config, err := json.Marshal(s.config)
	if err != nil {
		return fmt.Errorf("encode sandbox configuration: %w", err)
	}
	data, err := json.Marshal(intent{Boot: s.boot, Netns: s.netns, Handler: s.handler, Config: config})
	if err != nil {
		return fmt.Errorf("encode sandbox intent: %w", err)
	}
	dir := n.nsDir(s.id)
	for _, d := range []string{dir, n.cfg.NetnsDir} {
		if err := mkdir.All(d, 0o711); err != nil {
			return fmt.Errorf("make sandbox directory: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "intent"), data, 0o600); err != nil {
		return fmt.Errorf("write sandbox intent: %w", err)
	}
	return failpoint.At(failpoint.CRISandboxIntentAfter)
}

func (n *Native) setupNetwork(ctx context.Context, s *sandbox) error {
	if n.cfg.Network == nil {
		return errors.New("set up network: there is no pod network on this node")
	}
	if err := failpoint.At(failpoint.CRINetworkSetupBefore); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.CreateTimeout)
	defer cancel()
	r, err := n.cfg.Network.Setup(ctx, netRequest(s.id, s.netns, s.config))
	if err != nil {
		return fmt.Errorf("set up network: %w", err)
	}
	if len(r.Addrs) == 0 {
		return errors.New("set up network: the pod got no address")
	}
	n.state.edit(func() { s.addrs = r.Addrs })
	return failpoint.At(failpoint.CRINetworkSetupAfter)
}

// writeRecord makes the sandbox durable. On failure the sandbox is no longer
// ready, so that the plan removes it.
func (n *Native) writeRecord(ctx context.Context, s *sandbox) {
	err := n.createRecord(ctx, s)
	if err != nil {
		n.log.Error("cannot write sandbox record", "sandbox", s.id, "podUID", s.uid, "err", err)
		n.state.edit(func() { s.reason = reasonIncomplete })
		defer n.cfg.Wake(s.uid)
	}
	n.state.renew(&s.seq)
	s.commit(err)
}

func (n *Native) createRecord(ctx context.Context, s *sandbox) error {
	if err := failpoint.At(failpoint.CRISandboxRecordBefore); err != nil {
		return err
	}
	r, err := n.recordOf(s)
	if err != nil {
		return err
	}
	ctx, cancel := n.call(ctx)
	defer cancel()
	if _, err := n.client.ContainerService().Create(ctx, r); err != nil {
		return fmt.Errorf("write sandbox record: %w", err)
	}
	return failpoint.At(failpoint.CRISandboxRecordAfter)
}

func (n *Native) recordOf(s *sandbox) (containers.Container, error) {
	var r containers.Container
	config, err := json.Marshal(s.config)
	if err != nil {
		return r, fmt.Errorf("encode sandbox configuration: %w", err)
	}
	// Without a spec containerd refuses later changes of the record.
	minimal, err := typeurl.MarshalAny(&specs.Spec{Version: specs.Version})
	if err != nil {
		return r, fmt.Errorf("encode sandbox spec: %w", err)
	}
	handler, err := n.handler(s.handler)
	if err != nil {
		return r, err
	}
	labels := sandboxLabels(s)
	if err := checkLabels(labels); err != nil {
		return r, err
	}
	return containers.Container{
		ID: s.id, Labels: labels, Spec: minimal,
		Runtime:    containers.RuntimeInfo{Name: handler.Runtime},
		Extensions: map[string]typeurl.Any{sandboxExtension: &anypb.Any{TypeUrl: sandboxExtension, Value: config}},
	}, nil
}

// undoSandbox takes back a sandbox that failed to come up. What cannot be taken
// back now stays visible as not ready, so that the plan tries again.
func (n *Native) undoSandbox(ctx context.Context, s *sandbox) {
	ctx, cancel := n.detached(ctx)
	defer cancel()
	if err := n.releaseSandbox(ctx, s); err != nil {
		n.log.Warn("cannot take back a failed sandbox yet", "sandbox", s.id, "podUID", s.uid, "err", err)
		n.state.edit(func() { s.visible, s.reason = true, reasonIncomplete })
		n.cfg.Wake(s.uid)
		return
	}
	n.state.removeSandbox(s)
}
