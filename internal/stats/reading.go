package stats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
)

// Figures are what one cgroup, with those below it, uses and may use. A nil limit is
// none.
type Figures struct {
	Usage
	Devices   []Device
	OOMKills  uint64
	LimitHits uint64
	// Pressure is by cpu, memory and io; one that the kernel does not tell is missing.
	Pressure map[string]Pressure

	CPUShares, CPUWeight, CPUQuota, CPUPeriod *uint64
	MemoryMax, SwapMax, PIDsMax               *uint64
}

// Usage is what a cgroup uses. The times are since it was made.
type Usage struct {
	CPUNanos         uint64
	CPUUserNanos     uint64
	CPUSystemNanos   uint64
	CPUPeriods       uint64
	CPUThrottled     uint64
	CPUThrottledTime uint64

	MemoryBytes      uint64
	MemoryPeak       uint64
	MemoryWorkingSet uint64
	MemoryAnon       uint64
	MemoryFile       uint64
	MemoryMapped     uint64
	PageFaults       uint64
	MajorPageFaults  uint64
	SwapBytes        uint64

	Pids uint64

	ReadBytes  uint64
	WriteBytes uint64
}

// Device is what went to and came from one block device.
type Device struct {
	Device     string
	Reads      uint64
	Writes     uint64
	ReadBytes  uint64
	WriteBytes uint64
}

// Pressure is the time lost waiting for a resource: averages in percent, totals in
// microseconds.
type Pressure struct{ Some, Full Share }

// Share is the time in which some tasks waited, or all.
type Share struct {
	Avg10, Avg60, Avg300 float64
	Total                uint64
}

// Interface is what one interface of a network has carried. Its name may be a pod's
// choice.
type Interface struct {
	Name                                    string
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// Cgroup is one cgroup at one moment.
type Cgroup struct {
	Path string
	At   time.Time
	Figures
	// NanoCores is the rate since the reading before; nil: there was none.
	NanoCores *uint64
}

// Reading is what was read at one time. Containers are those that run, and pods those
// of which something is there.
type Reading struct {
	Node     Cgroup
	Kubepods *Cgroup // nil: it could not be read
	Own      *Cgroup // nil: the daemon has no cgroup of its own
	Network  []Interface
	At       time.Time // of the networks
	Pods     []Pod
	// Incomplete tells that something could not be read that is there.
	Incomplete bool
}

// Pod is what one pod uses.
type Pod struct {
	Object     *corev1.Pod // only read
	Sandbox    string
	Started    time.Time
	Cgroup     *Cgroup // nil: it could not be read
	Network    []Interface
	Containers []Container
	netns      string
}

// Container is what one container uses.
type Container struct {
	Name, ID, Image, LogPath string
	Started                  time.Time
	Cgroup
}

// sample is what a rate is counted from.
type sample struct {
	at    time.Time
	nanos uint64
}

// reader is one reading under way.
type reader struct {
	*Meter
	before, now map[string]sample
	incomplete  error // the first that could not be read
}

func (m *Meter) read(ctx context.Context) (*Reading, error) {
	r := &reader{Meter: m, before: m.before, now: map[string]sample{}}
	out := &Reading{}
	node := r.cgroup(ctx, "/")
	if node == nil {
		return nil, fmt.Errorf("read what the node uses: %w", r.incomplete)
	}
	out.Node = *node
	out.Kubepods = r.cgroup(ctx, m.cfg.Cgroups.Kubepods())
	if m.cfg.Own != "" && m.cfg.Own != "/" {
		out.Own = r.cgroup(ctx, m.cfg.Own)
	}
	networks := []string{""}
	for _, p := range m.cfg.Pods.Pods() {
		one, ok := r.pod(ctx, p)
		if !ok {
			continue
		}
		out.Pods = append(out.Pods, one)
		if one.netns != "" {
			networks = append(networks, one.netns)
		}
	}
	out.At = time.Now()
	carried := m.cfg.Network.Counters(ctx, networks)
	out.Network = carried[""]
	for i := range out.Pods {
		if p := &out.Pods[i]; p.netns != "" {
			p.Network = carried[p.netns]
		}
	}
	if out.Incomplete = r.incomplete != nil || ctx.Err() != nil; out.Incomplete {
		m.cfg.Logger.Debug("what the node uses was not read as a whole", "err", cmp.Or(r.incomplete, ctx.Err()))
	}
	m.before = r.now
	return out, nil
}

// pod reads one pod; not ok: nothing of it is there.
func (r *reader) pod(ctx context.Context, p *corev1.Pod) (out Pod, ok bool) {
	state := r.cfg.Runtime.Observe(p.UID)
	out.Object = p
	for _, s := range state.Sandboxes {
		if s.State == pod.SandboxReady {
			out.Sandbox, out.netns, out.Started, ok = s.ID, s.Netns, s.Created, true
		}
	}
	path, err := r.cfg.Cgroups.PodPath(p.UID, pod.QOSClass(p))
	if err != nil {
		return out, false // it has no cgroup and never had one
	}
	for _, c := range state.Containers {
		if c.State != pod.ContainerRunning || c.Started.IsZero() {
			continue
		}
		got := r.cgroup(ctx, r.cfg.Cgroups.ContainerCgroup(path, c.ID))
		if got == nil {
			continue // it has just ended
		}
		out.Containers = append(out.Containers, Container{Name: c.Name, ID: c.ID, Image: c.Image, LogPath: c.LogPath, Started: c.Started, Cgroup: *got})
		ok = true
	}
	// Two runs of one name at a time are rare, and a name counts once.
	slices.SortFunc(out.Containers, func(a, b Container) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), b.Started.Compare(a.Started))
	})
	out.Containers = slices.CompactFunc(out.Containers, func(a, b Container) bool { return a.Name == b.Name })
	if ok {
		out.Cgroup = r.cgroup(ctx, path)
	}
	return out, ok
}

// cgroup reads one cgroup; nil: it is gone, or cannot be read.
func (r *reader) cgroup(ctx context.Context, path string) *Cgroup {
	f, err := r.cfg.Cgroups.Figures(ctx, path)
	at := time.Now()
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) || path == "/" {
			r.incomplete = cmp.Or(r.incomplete, err)
		}
		return nil
	}
	c := &Cgroup{Path: path, At: at, Figures: f}
	r.now[path] = sample{at, f.CPUNanos}
	if b, ok := r.before[path]; ok && f.CPUNanos >= b.nanos && at.After(b.at) {
		rate := uint64(float64(f.CPUNanos-b.nanos) / at.Sub(b.at).Seconds())
		c.NanoCores = &rate
	}
	return c
}
