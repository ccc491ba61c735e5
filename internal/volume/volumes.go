package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	// Objects has the ConfigMaps and Secrets of pods.
	Objects Objects
	// Tokens has the tokens of pods, and Claims what their claims are bound to;
	// nil: this node has no API server.
	Tokens Tokens
	Claims Claims
	// Await waits until what the pod refers to was asked for once, so that a first
	// Setup need not fail; nil: everything is in memory.
	Await func(context.Context, *corev1.Pod)
	// Place is what the downward API tells of the node.
	Place pod.Place
	// RecursiveReadOnly tells whether a runtime handler can make a mount
	// read-only with all that is mounted below it; nil: none can.
	RecursiveReadOnly func(ctx context.Context, handler string) bool
	// StatsPeriod is how long a measurement of what a pod's volumes take is good
	// for; 0: a minute, less: nothing is measured.
	StatsPeriod time.Duration
	// Done is told of each volume that was set up, or brought up to date, and how long
	// that took; nil: nobody is. It must not block.
	Done   func(vol *corev1.Volume, took time.Duration, err error)
	Logger *slog.Logger
}

// Volumes makes and removes pods' volumes.
type Volumes struct {
	cfg   Config
	log   *slog.Logger
	locks locks
	looks looks
	meter *meter
}

// New returns Volumes; it makes nothing yet.
func New(cfg Config) (*Volumes, error) {
	if !filepath.IsAbs(cfg.RootDir) {
		return nil, errors.New("configure volumes: the root directory is no absolute path")
	}
	if cfg.Memory <= 0 {
		return nil, errors.New("configure volumes: the node's memory is needed")
	}
	if cfg.Objects == nil {
		return nil, errors.New("configure volumes: objects are needed")
	}
	if cfg.RecursiveReadOnly == nil {
		cfg.RecursiveReadOnly = func(context.Context, string) bool { return false }
	}
	if cfg.Await == nil {
		cfg.Await = func(context.Context, *corev1.Pod) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.StatsPeriod == 0 {
		cfg.StatsPeriod = time.Minute
	}
	measure := func(ctx context.Context, uid types.UID) ([]Usage, error) { return Measure(ctx, cfg.RootDir, uid) }
	return &Volumes{cfg: cfg, log: cfg.Logger, meter: newMeter(cfg.StatsPeriod, measure)}, nil
}

// plugin is the directory in which kubelet keeps the volumes of one kind.
type plugin string

const (
	pluginEmptyDir plugin = "kubernetes.io~empty-dir"
	pluginLocal    plugin = "kubernetes.io~local-volume"
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
	v.await(ctx, p)
	unlock, err := v.locks.lock(ctx, p.UID)
	if err != nil {
		return err
	}
	defer unlock()
	var absent, errs []error
	for i := range p.Spec.Volumes {
		vol, begun := &p.Spec.Volumes[i], time.Now()
		err := v.setup(ctx, p, vol)
		if v.cfg.Done != nil {
			v.cfg.Done(vol, time.Since(begun), err)
		}
		if err == nil {
			continue
		}
		err = fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", vol.Name, err)
		if isAbsent(err) {
			absent = append(absent, err)
		} else {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		// What time may mend is tried again by time: that an object is missing
		// must not be seen in such an error, only read.
		for _, err := range absent {
			errs = append(errs, errors.New(err.Error()))
		}
		return errors.Join(errs...)
	}
	return errors.Join(absent...)
}

// awaitObjects is how long a setup waits for objects to be read. It is shorter
// than what a setup may take, so that its error tells which one is missing.
const awaitObjects = 5 * time.Second

func (v *Volumes) await(ctx context.Context, p *corev1.Pod) {
	ctx, cancel := context.WithTimeout(ctx, awaitObjects)
	defer cancel()
	v.cfg.Await(ctx, p)
}

// isAbsent tells that only a change of an object helps.
func isAbsent(err error) bool {
	var lacks interface{ Absent() bool }
	return apierrors.IsNotFound(err) || errors.As(err, &lacks) && lacks.Absent()
}

func (v *Volumes) setup(ctx context.Context, p *corev1.Pod, vol *corev1.Volume) error {
	if err := errors.Join(ctx.Err(), plain(vol.Name)); err != nil {
		return err
	}
	switch {
	case vol.EmptyDir != nil:
		return v.setupEmptyDir(p, vol)
	case vol.HostPath != nil:
		_, err := v.hostPath(ctx, vol.HostPath)
		return err
	case objectPlugin(vol) != "":
		return v.setupObjects(ctx, p, vol)
	case pod.ClaimName(p, vol) != "":
		_, err := v.claimed(ctx, p, vol)
		return err
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
