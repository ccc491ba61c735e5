package stats

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Disk tells what is taken of file systems.
type Disk interface {
	// FileSystems are that of pods' files and logs, and that of images and of what
	// containers write.
	FileSystems(ctx context.Context) (node, images FileSystem, err error)
	// Volumes are those of pods, as far as they are counted.
	Volumes(ctx context.Context, pods []*corev1.Pod) map[types.UID][]Volume
	// Layer counts what a container has written into its root file system.
	Layer(ctx context.Context, container string) (bytes, inodes uint64, err error)
	// Logs counts the log files of a container by the path of one of them.
	Logs(path string) (bytes, inodes uint64, err error)
}

// FileSystem is how full a file system is.
type FileSystem struct {
	Device                    string
	At                        time.Time
	Capacity, Available, Used uint64
	Inodes, InodesFree        uint64
}

// Volume is what one volume of a pod takes.
type Volume struct {
	Name   string
	Claim  string // of the pod's namespace; "": it has none
	Memory bool   // it takes memory and not the node's disk
	Own    bool   // it is a file system of its own, with its own Capacity
	FileSystem
	InodesUsed uint64
}

// Space is what was counted in directories.
type Space struct {
	At            time.Time
	Bytes, Inodes uint64
}

// Disks is what was read at one time.
type Disks struct {
	Node, Images FileSystem
	Volumes      map[types.UID][]Volume
	Layers, Logs map[string]Space // by container
}

const (
	// layerPeriod is how often what a container has written is counted at most, as
	// kubelet's volumeStatsAggPeriod: a count walks through every file.
	layerPeriod = time.Minute
	// layerTime bounds all counts of one reading; the rest is counted at the next.
	layerTime = 3 * time.Second
)

// fileSystems are the node's, each once.
func (m *Meter) fileSystems(ctx context.Context) (all []FileSystem, failed bool) {
	node, images, err := m.cfg.Disk.FileSystems(ctx)
	if err != nil {
		m.cfg.Logger.Debug("how full the node's file systems are is not known", "err", err)
		return nil, true
	}
	all = append(all, node)
	if images.Device != node.Device {
		all = append(all, images)
	}
	return all, false
}

// Disks returns what is taken of file systems, as it was at most five seconds ago.
// What has to be counted file by file may be older.
func (m *Meter) Disks(ctx context.Context) (*Disks, error) { return m.disk.get(ctx, m.readDisks) }

func (m *Meter) readDisks(ctx context.Context) (*Disks, error) {
	r, err := m.Read(ctx)
	if err != nil {
		return nil, err
	}
	d := &Disks{Layers: map[string]Space{}, Logs: map[string]Space{}}
	if d.Node, d.Images, err = m.cfg.Disk.FileSystems(ctx); err != nil {
		return nil, err
	}
	var pods []*corev1.Pod
	var containers []*Container
	for i := range r.Pods {
		pods = append(pods, r.Pods[i].Object)
		for j := range r.Pods[i].Containers {
			containers = append(containers, &r.Pods[i].Containers[j])
		}
	}
	d.Volumes = m.cfg.Disk.Volumes(ctx, pods)
	for _, c := range containers {
		if c.LogPath == "" {
			continue
		}
		at := time.Now()
		if bytes, inodes, err := m.cfg.Disk.Logs(c.LogPath); err == nil {
			d.Logs[c.ID] = Space{at, bytes, inodes}
		}
	}
	m.countLayers(ctx, containers)
	for id, l := range m.layers {
		if !l.At.IsZero() {
			d.Layers[id] = l.Space
		}
	}
	return d, nil
}

// layer is the last count of what a container has written.
type layer struct {
	Space
	tried time.Time // also of a count that failed
}

// countLayers counts the layers whose count is old, the oldest first, one at a time
// and no longer than layerTime. One that is too large for that has its turn after
// all others.
func (m *Meter) countLayers(ctx context.Context, containers []*Container) {
	ctx, cancel := context.WithTimeout(ctx, layerTime)
	defer cancel()
	known := map[string]layer{}
	for _, c := range containers {
		known[c.ID] = m.layers[c.ID]
	}
	m.layers = known
	slices.SortStableFunc(containers, func(a, b *Container) int { return known[a.ID].tried.Compare(known[b.ID].tried) })
	for _, c := range containers {
		l := known[c.ID]
		if time.Since(l.tried) < layerPeriod || ctx.Err() != nil {
			return
		}
		l.tried = time.Now()
		if bytes, inodes, err := m.cfg.Disk.Layer(ctx, c.ID); err == nil {
			l.Space = Space{l.tried, bytes, inodes}
		} else {
			m.cfg.Logger.Debug("what a container has written is not counted", "container", c.ID, "err", err)
		}
		known[c.ID] = l
	}
}
