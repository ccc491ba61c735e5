package stats

import (
	"context"
	"io"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// subject is one cgroup as cAdvisor tells of it.
type subject struct {
	*Cgroup
	labels  []*dto.LabelPair
	started time.Time
	network []Interface
	carried time.Time // when network was read
	disks   []FileSystem
}

// subjectLabels are on every figure: Prometheus wants the same ones in a family.
func subjectLabels(container, path, image, name, namespace, pod string) []*dto.LabelPair {
	return []*dto.LabelPair{
		label("container", container), label("id", path), label("image", image), label("name", name),
		label("namespace", namespace), label("pod", pod),
	}
}

// subjects are all of a reading, with those labels that cAdvisor gives them for
// containerd. A pod's network is told of with its own cgroup, under the name of its
// sandbox.
func (r *Reading) subjects(boot time.Time, disks []FileSystem) []subject {
	all := []subject{{Cgroup: &r.Node, labels: subjectLabels("", "/", "", "", "", ""), started: boot, network: r.Network, carried: r.At, disks: disks}}
	for _, c := range []*Cgroup{r.Kubepods, r.Own} {
		if c != nil {
			all = append(all, subject{Cgroup: c, labels: subjectLabels("", c.Path, "", "", "", "")})
		}
	}
	for i := range r.Pods {
		p := &r.Pods[i]
		meta := &p.Object.ObjectMeta
		if p.Cgroup != nil {
			labels := subjectLabels("", p.Cgroup.Path, "", p.Sandbox, meta.Namespace, meta.Name)
			all = append(all, subject{Cgroup: p.Cgroup, labels: labels, started: p.Started, network: p.Network, carried: r.At})
		}
		for j := range p.Containers {
			c := &p.Containers[j]
			all = append(all, subject{Cgroup: &c.Cgroup, labels: subjectLabels(c.Name, c.Path, c.Image, c.ID, meta.Namespace, meta.Name), started: c.Started})
		}
	}
	return all
}

// values adds the figures of one family for one subject.
type values func(s *subject, add func(v float64, at time.Time, more ...*dto.LabelPair))

// of is a figure that each cgroup has.
func of(value func(*Figures) float64) values {
	return func(s *subject, add func(float64, time.Time, ...*dto.LabelPair)) { add(value(&s.Figures), s.At) }
}

// limit is a figure that only some have, told without a time.
func limit(value func(*Figures) *uint64) values {
	return func(s *subject, add func(float64, time.Time, ...*dto.LabelPair)) {
		if v := value(&s.Figures); v != nil {
			add(float64(*v), time.Time{})
		}
	}
}

// throttled is a figure of those whose CPU has a limit.
func throttled(value func(*Figures) float64) values {
	return func(s *subject, add func(float64, time.Time, ...*dto.LabelPair)) {
		if s.CPUQuota != nil {
			add(value(&s.Figures), s.At)
		}
	}
}

func devices(value func(*Device) uint64) values {
	return func(s *subject, add func(float64, time.Time, ...*dto.LabelPair)) {
		for i := range s.Devices {
			add(float64(value(&s.Devices[i])), s.At, label("device", s.Devices[i].Device))
		}
	}
}

func interfaces(value func(*Interface) uint64) values {
	return func(s *subject, add func(float64, time.Time, ...*dto.LabelPair)) {
		for i := range s.network {
			add(float64(value(&s.network[i])), s.carried, label("interface", s.network[i].Name))
		}
	}
}

func fileSystems(value func(*FileSystem) uint64) values {
	return func(s *subject, add func(float64, time.Time, ...*dto.LabelPair)) {
		for i := range s.disks {
			add(float64(value(&s.disks[i])), s.disks[i].At, label("device", s.disks[i].Device))
		}
	}
}

func pressure(of string, value func(*Pressure) uint64) values {
	return func(s *subject, add func(float64, time.Time, ...*dto.LabelPair)) {
		if p, ok := s.Pressure[of]; ok {
			add(float64(value(&p))/1e6, s.At)
		}
	}
}

// row is a family of cAdvisor's and where its figures come from.
type row struct {
	family
	values
}

// cadvisorRows are those of cAdvisor's names that kubelet serves and that can be known
// here, with cAdvisor's words.
func cadvisorRows() []row {
	return slices.Concat(cpuRows(), memoryRows(), diskRows(), networkRows(), otherRows())
}

func cpuRows() []row {
	return []row{
		{family{"container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.", true}, throttled(func(f *Figures) float64 { return float64(f.CPUPeriods) })},
		{family{"container_cpu_cfs_throttled_periods_total", "Number of throttled period intervals.", true}, throttled(func(f *Figures) float64 { return float64(f.CPUThrottled) })},
		{family{"container_cpu_cfs_throttled_seconds_total", "Total time duration the container has been throttled.", true}, throttled(func(f *Figures) float64 { return float64(f.CPUThrottledTime) / second })},
		{family{"container_cpu_system_seconds_total", "Cumulative system cpu time consumed in seconds.", true}, of(func(f *Figures) float64 { return float64(f.CPUSystemNanos) / second })},
		{family{"container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", true}, cpuTotal},
		{family{"container_cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds.", true}, of(func(f *Figures) float64 { return float64(f.CPUUserNanos) / second })},
		{family{"container_spec_cpu_period", "CPU period of the container.", false}, limit(func(f *Figures) *uint64 { return f.CPUPeriod })},
		{family{"container_spec_cpu_quota", "CPU quota of the container.", false}, limit(func(f *Figures) *uint64 { return f.CPUQuota })},
		{family{"container_spec_cpu_shares", "CPU share of the container.", false}, limit((*Figures).shares)},
	}
}

func memoryRows() []row {
	return []row{
		{family{"container_memory_cache", "Number of bytes of page cache memory.", false}, of(func(f *Figures) float64 { return float64(f.MemoryFile) })},
		{family{"container_memory_failcnt", "Number of memory usage hits limits", true}, of(func(f *Figures) float64 { return float64(f.LimitHits) })},
		{family{"container_memory_failures_total", "Cumulative count of memory allocation failures.", true}, faults},
		{family{"container_memory_mapped_file", "Size of memory mapped files in bytes.", false}, of(func(f *Figures) float64 { return float64(f.MemoryMapped) })},
		{family{"container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes", false}, of(func(f *Figures) float64 { return float64(f.MemoryPeak) })},
		{family{"container_memory_rss", "Size of RSS in bytes.", false}, of(func(f *Figures) float64 { return float64(f.MemoryAnon) })},
		{family{"container_memory_swap", "Container swap usage in bytes.", false}, of(func(f *Figures) float64 { return float64(f.SwapBytes) })},
		{family{"container_memory_usage_bytes", "Current memory usage in bytes, including all memory regardless of when it was accessed", false}, of(func(f *Figures) float64 { return float64(f.MemoryBytes) })},
		{family{"container_memory_working_set_bytes", "Current working set in bytes.", false}, of(func(f *Figures) float64 { return float64(f.MemoryWorkingSet) })},
		{family{"container_oom_events_total", "Count of out of memory events observed for the container", true}, of(func(f *Figures) float64 { return float64(f.OOMKills) })},
		{family{"container_spec_memory_limit_bytes", "Memory limit for the container.", false}, memoryLimit},
	}
}

func diskRows() []row {
	return []row{
		{family{"container_fs_inodes_free", "Number of available Inodes", false}, fileSystems(func(f *FileSystem) uint64 { return f.InodesFree })},
		{family{"container_fs_inodes_total", "Number of Inodes", false}, fileSystems(func(f *FileSystem) uint64 { return f.Inodes })},
		{family{"container_fs_limit_bytes", "Number of bytes that can be consumed by the container on this filesystem.", false}, fileSystems(func(f *FileSystem) uint64 { return f.Capacity })},
		{family{"container_fs_reads_bytes_total", "Cumulative count of bytes read", true}, devices(func(d *Device) uint64 { return d.ReadBytes })},
		{family{"container_fs_reads_total", "Cumulative count of reads completed", true}, devices(func(d *Device) uint64 { return d.Reads })},
		{family{"container_fs_usage_bytes", "Number of bytes that are consumed by the container on this filesystem.", false}, fileSystems(func(f *FileSystem) uint64 { return f.Used })},
		{family{"container_fs_writes_bytes_total", "Cumulative count of bytes written", true}, devices(func(d *Device) uint64 { return d.WriteBytes })},
		{family{"container_fs_writes_total", "Cumulative count of writes completed", true}, devices(func(d *Device) uint64 { return d.Writes })},
	}
}

func networkRows() []row {
	return []row{
		{family{"container_network_receive_bytes_total", "Cumulative count of bytes received", true}, interfaces(func(i *Interface) uint64 { return i.RxBytes })},
		{family{"container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", true}, interfaces(func(i *Interface) uint64 { return i.RxErrors })},
		{family{"container_network_receive_packets_dropped_total", "Cumulative count of packets dropped while receiving", true}, interfaces(func(i *Interface) uint64 { return i.RxDropped })},
		{family{"container_network_receive_packets_total", "Cumulative count of packets received", true}, interfaces(func(i *Interface) uint64 { return i.RxPackets })},
		{family{"container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", true}, interfaces(func(i *Interface) uint64 { return i.TxBytes })},
		{family{"container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", true}, interfaces(func(i *Interface) uint64 { return i.TxErrors })},
		{family{"container_network_transmit_packets_dropped_total", "Cumulative count of packets dropped while transmitting", true}, interfaces(func(i *Interface) uint64 { return i.TxDropped })},
		{family{"container_network_transmit_packets_total", "Cumulative count of packets transmitted", true}, interfaces(func(i *Interface) uint64 { return i.TxPackets })},
	}
}

func otherRows() []row {
	waiting := func(p *Pressure) uint64 { return p.Some.Total }
	stalled := func(p *Pressure) uint64 { return p.Full.Total }
	return []row{
		{family{"container_last_seen", "Last time a container was seen by the exporter", false}, lastSeen},
		{family{"container_pressure_cpu_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to CPU congestion.", true}, pressure("cpu", stalled)},
		{family{"container_pressure_cpu_waiting_seconds_total", "Total time duration tasks in the container have waited due to CPU congestion.", true}, pressure("cpu", waiting)},
		{family{"container_pressure_io_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to IO congestion.", true}, pressure("io", stalled)},
		{family{"container_pressure_io_waiting_seconds_total", "Total time duration tasks in the container have waited due to IO congestion.", true}, pressure("io", waiting)},
		{family{"container_pressure_memory_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to memory congestion.", true}, pressure("memory", stalled)},
		{family{"container_pressure_memory_waiting_seconds_total", "Total time duration tasks in the container have waited due to memory congestion.", true}, pressure("memory", waiting)},
		{family{"container_start_time_seconds", "Start time of the container since unix epoch in seconds.", false}, startTime},
		{family{"container_threads", "Number of threads running inside the container", false}, of(func(f *Figures) float64 { return float64(f.Pids) })},
		{family{"container_threads_max", "Maximum number of threads allowed inside the container, infinity if value is zero", false}, threadsMax},
	}
}

func cpuTotal(s *subject, add func(float64, time.Time, ...*dto.LabelPair)) {
	add(float64(s.CPUNanos)/second, s.At, label("cpu", "total"))
}

func lastSeen(s *subject, add func(float64, time.Time, ...*dto.LabelPair)) {
	add(float64(s.At.Unix()), s.At)
}

func faults(s *subject, add func(float64, time.Time, ...*dto.LabelPair)) {
	add(float64(s.PageFaults), s.At, label("failure_type", "pgfault"), label("scope", "hierarchy"))
	add(float64(s.MajorPageFaults), s.At, label("failure_type", "pgmajfault"), label("scope", "hierarchy"))
}

// memoryLimit is 0 for none, as cAdvisor's; dashboards divide by it and leave out
// what is infinite.
func memoryLimit(s *subject, add func(float64, time.Time, ...*dto.LabelPair)) {
	v := uint64(0)
	if s.MemoryMax != nil {
		v = *s.MemoryMax
	}
	add(float64(v), time.Time{})
}

func threadsMax(s *subject, add func(float64, time.Time, ...*dto.LabelPair)) {
	v := uint64(0)
	if s.PIDsMax != nil {
		v = *s.PIDsMax
	}
	add(float64(v), s.At)
}

func startTime(s *subject, add func(float64, time.Time, ...*dto.LabelPair)) {
	if !s.started.IsZero() {
		add(float64(s.started.Unix()), time.Time{})
	}
}

// shares are v1's; a weight of v2 is turned back as cAdvisor does it.
func (f *Figures) shares() *uint64 {
	if f.CPUShares != nil || f.CPUWeight == nil {
		return f.CPUShares
	}
	return new(2 + (*f.CPUWeight-min(*f.CPUWeight, 1))*262142/9999)
}

// WriteCadvisor writes what kubelet serves at /metrics/cadvisor, from our own
// readings.
func (m *Meter) WriteCadvisor(ctx context.Context, w io.Writer) error {
	r, err := m.Read(ctx)
	if err != nil {
		return err
	}
	disks, failed := m.fileSystems(ctx)
	all := r.subjects(m.cfg.Machine.Boot, disks)
	p := newPage(w)
	p.one("cadvisor_version_info", "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor version & cadvisor revision.", 1,
		label("cadvisorRevision", ""), label("cadvisorVersion", ""), label("dockerVersion", ""), label("kernelVersion", m.cfg.Machine.Kernel), label("osVersion", m.cfg.Machine.OSImage))
	for _, f := range cadvisorRows() {
		var figures []*dto.Metric
		for i := range all {
			s := &all[i]
			f.values(s, func(v float64, at time.Time, more ...*dto.LabelPair) {
				// The labels of a subject are shared by all of its figures.
				labels := append(s.labels[:len(s.labels):len(s.labels)], more...)
				figures = append(figures, f.metric(v, at, labels))
			})
		}
		p.write(f.family, figures)
	}
	p.one("container_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise", oneIf(r.Incomplete || failed))
	p.machine(&m.cfg.Machine)
	return p.end()
}

func (p *page) machine(m *Machine) {
	who := []*dto.LabelPair{label("boot_id", m.BootID), label("machine_id", m.MachineID), label("system_uuid", m.SystemUUID)}
	p.one("machine_cpu_cores", "Number of logical CPU cores.", float64(m.CPUs), who...)
	p.one("machine_memory_bytes", "Amount of memory installed on the machine.", float64(m.Memory), who...)
	p.one("machine_scrape_error", "1 if there was an error while getting machine metrics, 0 otherwise.", 0)
	p.one("machine_swap_bytes", "Amount of swap memory available on the machine.", float64(m.Swap), who...)
}
