package cri

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strconv"
	"time"

	apitypes "github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/cri/image"
	"nodeagent/internal/cri/spec"
	"nodeagent/internal/failpoint"
	"nodeagent/internal/pod"
)

// CreateContainer makes record and snapshot of a container; its image must be
// in the store. sandboxConfig is that which the sandbox was run with.
//
// There is no lease: the record is what keeps the snapshot from containerd's
// garbage collector, and a crash leaves a record without a task, which is seen
// after a restart and removed. That saves two transactions, each two fsyncs.
func (n *Native) CreateContainer(ctx context.Context, sandboxID string, config *runtimeapi.ContainerConfig, sandboxConfig *runtimeapi.PodSandboxConfig) (string, error) {
	s, err := n.state.sandbox(sandboxID)
	if err != nil {
		return "", err
	}
	if err := n.usable(s); err != nil {
		return "", err
	}
	img, err := n.imageOf(ctx, config)
	if err != nil {
		return "", err
	}
	c, err := n.newContainer(s, config, img)
	if err != nil {
		return "", err
	}
	record, err := n.containerRecord(ctx, s, c, config, sandboxConfig, img)
	if err != nil {
		return "", err
	}
	// In the state before its record: a relist that sees the record first must
	// not take it for a leftover.
	c.starting, c.creating = true, true
	n.state.addContainer(c)
	if err := n.makeContainer(ctx, c, record, img); err != nil {
		n.undoContainer(ctx, c)
		return "", fmt.Errorf("create container: %w", err)
	}
	n.state.renew(&c.seq)
	n.state.edit(func() { c.starting, c.creating = false, false })
	return c.id, nil
}

func (n *Native) usable(s *sandbox) (err error) {
	n.state.edit(func() {
		if !s.visible || s.stopping || s.reason != "" {
			err = fmt.Errorf("sandbox %s is not ready: %s", s.id, s.reason)
		}
	})
	return err
}

func (n *Native) imageOf(ctx context.Context, config *runtimeapi.ContainerConfig) (image.Image, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.CreateTimeout)
	defer cancel()
	img, err := n.images.Get(ctx, config.GetImage().GetImage())
	if err != nil {
		return img, fmt.Errorf("look up image: %w", err)
	}
	if img.Unpacked {
		return img, nil
	}
	if img, err = n.images.Unpack(ctx, img); err != nil {
		return img, fmt.Errorf("unpack image: %w", err)
	}
	return img, nil
}

func (n *Native) newContainer(s *sandbox, config *runtimeapi.ContainerConfig, img image.Image) (*container, error) {
	meta := s.config.GetMetadata()
	c := newContainer(newID(), s.id, s.uid)
	c.namespace, c.podName, c.boot = meta.GetNamespace(), meta.GetName(), n.boot
	c.snapshotter = n.cfg.Snapshotter
	c.cgroup = n.cgroupPath(s.config.GetLinux().GetCgroupParent(), c.id)
	c.terminal, c.stdin, c.stdinOnce = config.GetTty(), config.GetStdin(), config.GetStdinOnce()
	signal, ignored := spec.StopSignal(config, img.Config)
	if ignored != "" {
		n.log.Warn("image has a stop signal that is none; TERM is used", "container", c.id, "podUID", c.uid, "image", img.Name)
	}
	c.signal = strconv.Itoa(int(signal))
	labels := config.GetLabels()
	backoff, _ := time.ParseDuration(labels[pod.LabelBackoff])
	init, sidecar := pod.InitPlace(labels[pod.LabelInit])
	c.info = pod.Container{
		ID: c.id, Name: config.GetMetadata().GetName(), SandboxID: s.id,
		Init: init, Sidecar: sidecar, PreStop: labels[pod.LabelPreStop],
		PostStart: config.GetAnnotations()[pod.AnnotationPostStart] == "true",
		Attempt:   config.GetMetadata().GetAttempt(), Hash: labels[pod.LabelHash], Backoff: backoff,
		Image: userImage(config), ImageID: imageID(img), State: pod.ContainerCreated, Created: time.Now(),
		RecursiveReadOnly: labels[pod.LabelRecursiveReadOnly] == "true",
	}
	if c.info.Name == "" {
		return nil, errors.New("create container: it has no name")
	}
	if dir, log := s.config.GetLogDirectory(), config.GetLogPath(); dir != "" && log != "" {
		c.info.LogPath = filepath.Join(dir, log)
		if rel, err := filepath.Rel(dir, c.info.LogPath); err != nil || !filepath.IsLocal(rel) {
			return nil, fmt.Errorf("create container: log path %q leaves the pod's log directory", log)
		}
	}
	return c, nil
}

func userImage(config *runtimeapi.ContainerConfig) string {
	if u := config.GetImage().GetUserSpecifiedImage(); u != "" {
		return u
	}
	return config.GetImage().GetImage()
}

func imageID(img image.Image) string {
	if len(img.RepoDigests) > 0 {
		return img.RepoDigests[0]
	}
	return img.ID.String()
}

// cgroupPath is where runc puts the container, below each hierarchy.
func (n *Native) cgroupPath(parent, id string) string {
	if n.cfg.SystemdCgroup {
		return filepath.Join(parent, "cri-containerd-"+id+".scope")
	}
	return filepath.Join(parent, id)
}

// cgroupsPath is how the same place is written in the spec.
func (n *Native) cgroupsPath(parent, id string) string {
	if n.cfg.SystemdCgroup {
		return filepath.Base(parent) + ":cri-containerd:" + id
	}
	return filepath.Join(parent, id)
}

func (n *Native) containerRecord(ctx context.Context, s *sandbox, c *container, config *runtimeapi.ContainerConfig, sandboxConfig *runtimeapi.PodSandboxConfig, img image.Image) (containers.Container, error) {
	var r containers.Container
	built, err := n.buildSpec(ctx, s, c, config, sandboxConfig, img)
	if err != nil {
		return r, err
	}
	encoded, err := typeurl.MarshalAny(built)
	if err != nil {
		return r, fmt.Errorf("encode container spec: %w", err)
	}
	handler, err := n.handler(s.handler)
	if err != nil {
		return r, err
	}
	options, err := handler.options(n.cfg.SystemdCgroup)
	if err != nil {
		return r, err
	}
	c.runtime, c.info.User = handler.Runtime, userOf(built)
	labels := containerLabels(s, c, config)
	if err := checkLabels(labels); err != nil {
		return r, err
	}
	return containers.Container{
		ID: c.id, Labels: labels, Image: img.Name, Spec: encoded,
		Runtime:     containers.RuntimeInfo{Name: handler.Runtime, Options: options},
		Snapshotter: c.snapshotter, SnapshotKey: c.id,
	}, nil
}

func containerLabels(s *sandbox, c *container, config *runtimeapi.ContainerConfig) map[string]string {
	l := podLabels(s.config.GetMetadata())
	maps.Copy(l, keptLabels(config.GetLabels()))
	l[pod.LabelContainerName] = c.info.Name
	l[labelKind], l[labelSandbox], l[labelBoot], l[labelCgroup] = c.kind, c.sandbox, c.boot, c.cgroup
	l[labelAttempt] = strconv.FormatUint(uint64(c.info.Attempt), 10)
	l[labelImage], l[labelImageID] = c.info.Image, c.info.ImageID
	for key, value := range map[string]string{labelLog: c.info.LogPath, labelSignal: c.signal, labelUser: encodeUser(c.info.User)} {
		if value != "" {
			l[key] = value
		}
	}
	return l
}

// makeContainer writes the record and then makes the snapshot that it refers to:
// the other way round, or side by side, containerd's collector may run between
// the two and takes the snapshot, which nothing refers to yet.
func (n *Native) makeContainer(ctx context.Context, c *container, record containers.Container, img image.Image) error {
	if err := n.recordContainer(ctx, record); err != nil {
		return err
	}
	if err := failpoint.At(failpoint.CRISnapshotPrepareBefore); err != nil {
		return err
	}
	mounts, err := n.prepareSnapshot(ctx, c, img)
	if err != nil {
		return fmt.Errorf("prepare root file system: %w", err)
	}
	n.state.edit(func() { c.mounts = protoMounts(mounts) })
	return failpoint.At(failpoint.CRISnapshotPrepareAfter)
}

func (n *Native) recordContainer(ctx context.Context, record containers.Container) error {
	if err := failpoint.At(failpoint.CRIContainerRecordBefore); err != nil {
		return err
	}
	ctx, cancel := n.call(ctx)
	defer cancel()
	if _, err := n.client.ContainerService().Create(ctx, record); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return failpoint.At(failpoint.CRIContainerRecordAfter)
}

func (n *Native) prepareSnapshot(ctx context.Context, c *container, img image.Image) ([]mount.Mount, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.CreateTimeout)
	defer cancel()
	snapshots := n.client.SnapshotService(c.snapshotter)
	mounts, err := snapshots.Prepare(ctx, c.id, img.ChainID.String())
	if !errdefs.IsNotFound(err) {
		return mounts, err
	}
	if _, err := n.images.Unpack(ctx, img); err != nil {
		return nil, err
	}
	return snapshots.Prepare(ctx, c.id, img.ChainID.String())
}

func protoMounts(mounts []mount.Mount) []*apitypes.Mount {
	out := make([]*apitypes.Mount, 0, len(mounts))
	for _, m := range mounts {
		out = append(out, &apitypes.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return out
}

// undoContainer takes back a container that could not be made. What cannot be
// taken back now stays observed as created, and the plan removes it.
func (n *Native) undoContainer(ctx context.Context, c *container) {
	ctx, cancel := n.detached(ctx)
	defer cancel()
	if err := n.deleteContainer(ctx, c); err != nil {
		n.log.Warn("cannot take back a failed container yet", "container", c.id, "podUID", c.uid, "err", err)
		n.state.edit(func() { c.starting, c.creating = false, false })
		n.cfg.Wake(c.uid)
		return
	}
	n.state.removeContainer(c)
}
