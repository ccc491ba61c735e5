package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
)

// Config says where the volumes are and what they are made from.
type Config struct {
	RootDir string // /var/lib/kubelet
	// Limits are the node's choices about cgroups: what a pod may use bounds its
	// volumes in memory.
	Limits pod.Limits
	// Memory is what all pods together may use, in bytes.
	Memory int64
	Logger *slog.Logger
}

// Volumes makes and removes pods' volumes.
type Volumes struct {
	cfg Config
	log *slog.Logger
}

// New returns Volumes; it makes nothing yet.
func New(cfg Config) (*Volumes, error) {
	if !filepath.IsAbs(cfg.RootDir) {
		return nil, errors.New("configure volumes: the root directory is no absolute path")
	}
	if cfg.Memory <= 0 {
		return nil, errors.New("configure volumes: the node's memory is needed")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Volumes{cfg: cfg, log: cfg.Logger}, nil
}

// plugin is the directory in which kubelet keeps the volumes of one kind.
type plugin string

const (
	pluginEmptyDir plugin = "kubernetes.io~empty-dir"
)

func (v *Volumes) pods() string { return filepath.Join(v.cfg.RootDir, "pods") }

// volumes is the directory of all volumes of the pod.
func (v *Volumes) volumes(uid types.UID) string {
	return filepath.Join(v.pods(), string(uid), "volumes")
}

// dir is the directory of one volume.
func (v *Volumes) dir(uid types.UID, kind plugin, name string) string {
	return filepath.Join(v.volumes(uid), string(kind), name)
}

// Setup makes the pod's volumes. One that is there already is brought up to date
// where it shows something that changes, and otherwise left alone. It tells of
// every volume that failed, in kubelet's words.
func (v *Volumes) Setup(ctx context.Context, p *corev1.Pod) error {
	if err := plain(string(p.UID)); err != nil {
		return err
	}
	var errs []error
	for i := range p.Spec.Volumes {
		vol := &p.Spec.Volumes[i]
		if err := v.setup(ctx, p, vol); err != nil {
			errs = append(errs, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", vol.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (v *Volumes) setup(ctx context.Context, p *corev1.Pod, vol *corev1.Volume) error {
	if err := errors.Join(ctx.Err(), plain(vol.Name)); err != nil {
		return err
	}
	switch {
	case vol.EmptyDir != nil:
		return v.setupEmptyDir(p, vol)
	default:
		return errors.New("no volume plugin matched")
	}
}

// plain refuses names that would lead out of the directories. Validation does
// too; this is the last place before a mount or a deletion.
func plain(names ...string) error {
	for _, n := range names {
		if n == "" || n[0] == '.' || strings.ContainsAny(n, "/\x00") {
			return fmt.Errorf("use %q as the name of a directory: it is not a plain name", n)
		}
	}
	return nil
}
