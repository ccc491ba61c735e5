package stats

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Summary is what kubelet serves at /stats/summary; brief is its
// only_cpu_and_memory.
func (m *Meter) Summary(ctx context.Context, brief bool) (*statsapi.Summary, error) {
	r, err := m.Read(ctx)
	if err != nil {
		return nil, err
	}
	s := &statsapi.Summary{Node: m.nodeStats(r), Pods: []statsapi.PodStats{}}
	for i := range r.Pods {
		s.Pods = append(s.Pods, podStats(&r.Pods[i]))
	}
	if brief {
		return s, nil
	}
	d, err := m.Disks(ctx)
	if err != nil {
		return nil, err
	}
	s.Node.IO, s.Node.Network = ioStats(&r.Node), networkStats(r.At, r.Network)
	s.Node.Fs = fsStats(&d.Node)
	s.Node.Runtime = &statsapi.RuntimeStats{ImageFs: fsStats(&d.Images), ContainerFs: fsStats(&d.Images)}
	s.Node.Rlimit = m.rlimit()
	for i := range r.Pods {
		fill(&s.Pods[i], &r.Pods[i], r.At, d)
	}
	return s, nil
}

func (m *Meter) nodeStats(r *Reading) statsapi.NodeStats {
	n := statsapi.NodeStats{
		NodeName: m.cfg.NodeName, StartTime: metav1.NewTime(m.cfg.Machine.Boot),
		CPU: cpuStats(&r.Node), Memory: memoryStats(&r.Node, &m.cfg.Machine.Memory), Swap: swapStats(&r.Node, &m.cfg.Machine.Swap),
	}
	for _, c := range []struct {
		name   string
		cgroup *Cgroup
	}{{statsapi.SystemContainerPods, r.Kubepods}, {statsapi.SystemContainerKubelet, r.Own}} {
		if c.cgroup != nil {
			n.SystemContainers = append(n.SystemContainers, statsapi.ContainerStats{
				Name: c.name, StartTime: metav1.NewTime(m.cfg.Machine.Boot),
				CPU: cpuStats(c.cgroup), Memory: memoryStats(c.cgroup, c.cgroup.MemoryMax), Swap: swapStats(c.cgroup, nil),
			})
		}
	}
	return n
}

func podStats(p *Pod) statsapi.PodStats {
	meta := &p.Object.ObjectMeta
	out := statsapi.PodStats{
		PodRef:    statsapi.PodReference{Name: meta.Name, Namespace: meta.Namespace, UID: string(meta.UID)},
		StartTime: metav1.NewTime(p.Started), Containers: []statsapi.ContainerStats{},
	}
	if c := p.Cgroup; c != nil {
		out.CPU, out.Memory, out.Swap = cpuStats(c), memoryStats(c, c.MemoryMax), swapStats(c, nil)
	}
	for i := range p.Containers {
		c := &p.Containers[i]
		out.Containers = append(out.Containers, statsapi.ContainerStats{
			Name: c.Name, StartTime: metav1.NewTime(c.Started),
			CPU: cpuStats(&c.Cgroup), Memory: memoryStats(&c.Cgroup, c.MemoryMax), Swap: swapStats(&c.Cgroup, nil),
		})
	}
	return out
}

// fill adds to a pod what its disk and its network say.
func fill(out *statsapi.PodStats, p *Pod, at time.Time, d *Disks) {
	if c := p.Cgroup; c != nil {
		out.IO, out.ProcessStats = ioStats(c), &statsapi.ProcessStats{ProcessCount: &c.Pids}
	}
	if p.netns != "" {
		out.Network = networkStats(at, p.Network)
	}
	taken := Space{At: d.Node.At}
	for i := range p.Containers {
		c, s := &p.Containers[i], &out.Containers[i]
		s.IO = ioStats(&c.Cgroup)
		for _, part := range []struct {
			to  **statsapi.FsStats
			of  map[string]Space
			all *FileSystem
		}{{&s.Rootfs, d.Layers, &d.Images}, {&s.Logs, d.Logs, &d.Node}} {
			if space, ok := part.of[c.ID]; ok {
				*part.to = spaceStats(space, part.all)
				taken.Bytes, taken.Inodes = taken.Bytes+space.Bytes, taken.Inodes+space.Inodes
			}
		}
	}
	for i := range d.Volumes[p.Object.UID] {
		v := &d.Volumes[p.Object.UID][i]
		out.VolumeStats = append(out.VolumeStats, volumeStats(v, p.Object, &d.Node))
		if !v.Own && v.Claim == "" {
			taken.Bytes, taken.Inodes = taken.Bytes+v.Used, taken.Inodes+v.InodesUsed
		}
	}
	out.EphemeralStorage = spaceStats(taken, &d.Node)
}

func cpuStats(c *Cgroup) *statsapi.CPUStats {
	return &statsapi.CPUStats{Time: metav1.NewTime(c.At), UsageNanoCores: c.NanoCores, UsageCoreNanoSeconds: &c.CPUNanos, PSI: psi(c, "cpu")}
}

// memoryStats tells of what is available only where there is a limit.
func memoryStats(c *Cgroup, limit *uint64) *statsapi.MemoryStats {
	out := &statsapi.MemoryStats{
		Time: metav1.NewTime(c.At), UsageBytes: &c.MemoryBytes, WorkingSetBytes: &c.MemoryWorkingSet, RSSBytes: &c.MemoryAnon,
		PageFaults: &c.PageFaults, MajorPageFaults: &c.MajorPageFaults, PSI: psi(c, "memory"),
	}
	if limit != nil && *limit > 0 {
		out.AvailableBytes = new(*limit - min(*limit, c.MemoryWorkingSet))
	}
	return out
}

func swapStats(c *Cgroup, whole *uint64) *statsapi.SwapStats {
	out := &statsapi.SwapStats{Time: metav1.NewTime(c.At), SwapUsageBytes: &c.SwapBytes}
	if whole != nil {
		out.SwapAvailableBytes = new(*whole - min(*whole, c.SwapBytes))
	} else if limit, ok := swapLimit(&c.Figures); ok {
		out.SwapAvailableBytes = new(uint64(limit) - min(uint64(limit), c.SwapBytes))
	}
	return out
}

// ioStats are nil where the kernel tells of no pressure: there is nothing else in
// them.
func ioStats(c *Cgroup) *statsapi.IOStats {
	p := psi(c, "io")
	if p == nil {
		return nil
	}
	return &statsapi.IOStats{Time: metav1.NewTime(c.At), PSI: p}
}

func psi(c *Cgroup, of string) *statsapi.PSIStats {
	p, ok := c.Pressure[of]
	if !ok {
		return nil
	}
	data := func(s Share) statsapi.PSIData {
		return statsapi.PSIData{Total: s.Total, Avg10: s.Avg10, Avg60: s.Avg60, Avg300: s.Avg300}
	}
	return &statsapi.PSIStats{Full: data(p.Full), Some: data(p.Some)}
}

// mainInterface is the one whose figures stand for the whole, as kubelet has it.
const mainInterface = "eth0"

func networkStats(at time.Time, all []Interface) *statsapi.NetworkStats {
	out := &statsapi.NetworkStats{Time: metav1.NewTime(at)}
	for i := range all {
		n := &all[i]
		one := statsapi.InterfaceStats{
			Name:    strings.ToValidUTF8(n.Name, "\uFFFD"),
			RxBytes: &n.RxBytes, RxErrors: &n.RxErrors, TxBytes: &n.TxBytes, TxErrors: &n.TxErrors,
		}
		if n.Name == mainInterface {
			out.InterfaceStats = one
		}
		out.Interfaces = append(out.Interfaces, one)
	}
	return out
}

func fsStats(f *FileSystem) *statsapi.FsStats {
	used := f.Inodes - min(f.Inodes, f.InodesFree)
	return &statsapi.FsStats{
		Time: metav1.NewTime(f.At), AvailableBytes: &f.Available, CapacityBytes: &f.Capacity, UsedBytes: &f.Used,
		InodesFree: &f.InodesFree, Inodes: &f.Inodes, InodesUsed: &used,
	}
}

// spaceStats is what was counted of a file system that others use too.
func spaceStats(s Space, of *FileSystem) *statsapi.FsStats {
	out := fsStats(of)
	out.Time, out.UsedBytes, out.InodesUsed = metav1.NewTime(s.At), &s.Bytes, &s.Inodes
	return out
}

func volumeStats(v *Volume, p *corev1.Pod, node *FileSystem) statsapi.VolumeStats {
	out := statsapi.VolumeStats{Name: v.Name}
	if v.Own {
		out.FsStats = *fsStats(&v.FileSystem)
		out.InodesUsed = &v.InodesUsed
	} else {
		out.FsStats = *spaceStats(Space{v.At, v.Used, v.InodesUsed}, node)
	}
	if v.Claim != "" {
		out.PVCRef = &statsapi.PVCReference{Name: v.Claim, Namespace: p.Namespace}
	}
	return out
}

// rlimit is how many processes there are, and can be.
func (m *Meter) rlimit() *statsapi.RlimitStats {
	out := &statsapi.RlimitStats{Time: metav1.Now()}
	for _, name := range []string{"pid_max", "threads-max"} {
		text, err := os.ReadFile(filepath.Join(m.cfg.Proc, "sys/kernel", name))
		if n, perr := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && perr == nil && (out.MaxPID == nil || n < *out.MaxPID) {
			out.MaxPID = &n
		}
	}
	text, err := os.ReadFile(filepath.Join(m.cfg.Proc, "loadavg"))
	if fields := strings.Fields(string(text)); err == nil && len(fields) > 3 {
		_, total, _ := strings.Cut(fields[3], "/")
		if n, err := strconv.ParseInt(total, 10, 64); err == nil {
			out.NumOfRunningProcesses = &n
		}
	}
	return out
}
