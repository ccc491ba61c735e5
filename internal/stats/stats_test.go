package stats

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func uses(nanos, workingSet uint64) Figures {
	return Figures{Usage: Usage{CPUNanos: nanos, MemoryBytes: workingSet + 10, MemoryWorkingSet: workingSet, Pids: 1}}
}

func (s *scene) resource(t *testing.T, m *Meter) figures {
	t.Helper()
	return scrape(t, func(ctx context.Context, w *bytes.Buffer) error { return m.WriteResource(ctx, w) })
}

// TestResource: what metrics-server reads has the names, labels and units that it
// looks for; what has just ended is not told of with half of it.
func TestResource(t *testing.T) {
	s := newScene()
	s.run("default", "web", map[string]Figures{"a": uses(1500e6, 100), "b": uses(2e9, 50)})
	s.run("kube-system", "dns", map[string]Figures{"a": uses(5e9, 7)})
	delete(s.cgroups, "/kubepods/poduid-web/id-web-b") // it ends just now
	got := s.resource(t, s.meter(t))
	for name, want := range map[string]map[string]float64{
		"node_cpu_usage_seconds_total":      {"": 90},
		"node_memory_working_set_bytes":     {"": 700},
		"node_swap_usage_bytes":             {"": 3},
		"container_cpu_usage_seconds_total": {"container=a,namespace=default,pod=web": 1.5, "container=a,namespace=kube-system,pod=dns": 5},
		"container_memory_working_set_bytes": {
			"container=a,namespace=default,pod=web": 100, "container=a,namespace=kube-system,pod=dns": 7},
		"container_start_time_seconds": {"container=a,namespace=default,pod=web": 3000.5, "container=a,namespace=kube-system,pod=dns": 3000.5},
		"pod_cpu_usage_seconds_total":  {"namespace=default,pod=web": 3.5, "namespace=kube-system,pod=dns": 5},
		"pod_memory_working_set_bytes": {"namespace=default,pod=web": 150, "namespace=kube-system,pod=dns": 7},
		"resource_scrape_error":        {"": 0},
	} {
		if !maps.Equal(got[name], want) {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}

// TestIncomplete: what cannot be read is said to be missing; without the node's own
// figures there are none.
func TestIncomplete(t *testing.T) {
	s := newScene()
	s.run("default", "web", map[string]Figures{"a": uses(1, 1)})
	s.broken["/kubepods/poduid-web/id-web-a"] = errors.New("input/output error")
	got := s.resource(t, s.meter(t))
	if got["resource_scrape_error"][""] != 1 || len(got["container_cpu_usage_seconds_total"]) != 0 || got["node_cpu_usage_seconds_total"][""] != 90 {
		t.Errorf("%v", got)
	}
	s.broken["/"] = errors.New("gone")
	var out bytes.Buffer
	if err := s.meter(t).WriteResource(t.Context(), &out); err == nil || out.Len() > 0 || !strings.Contains(err.Error(), "gone") {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// TestHostileNames: no name adds a figure, ends a page or has it refused.
func TestHostileNames(t *testing.T) {
	for _, name := range []string{
		"a\"} 1\nnode_cpu_usage_seconds_total 5\n", `back\slash"quote`, "bad\xff\xfeutf8", "line\nfeed\rreturn\x00nul\x1b[31m",
		strings.Repeat("long", 10000), "# TYPE x counter", "",
	} {
		s := newScene()
		p := s.run(name, name, map[string]Figures{name: {Usage: uses(1e9, 5).Usage, Devices: []Device{{Device: name, Reads: 3}}}})
		s.network["/run/netns/"+p.Name] = []Interface{{Name: name, RxBytes: 9}}
		m := s.meter(t)
		for _, write := range []func(context.Context, *bytes.Buffer) error{
			func(ctx context.Context, w *bytes.Buffer) error { return m.WriteResource(ctx, w) },
			func(ctx context.Context, w *bytes.Buffer) error { return m.WriteCadvisor(ctx, w) },
			func(ctx context.Context, w *bytes.Buffer) error { return m.WriteDaemon(ctx, w) },
		} {
			got := scrape(t, write)
			if v, ok := got["node_cpu_usage_seconds_total"]; ok && (len(v) != 1 || v[""] != 90) {
				t.Errorf("%q makes the node's figures %v", name, v)
			}
			for family, all := range got {
				if strings.HasPrefix(family, "container_network_receive_bytes") && len(all) != 2 || family == "container_fs_reads_total" && len(all) != 1 {
					t.Errorf("%q: %s is %v", name, family, all)
				}
				for labels := range all {
					if len(labels) > 8*(maxLabel+100) {
						t.Errorf("%s has labels of %d bytes", family, len(labels))
					}
				}
			}
		}
	}
}

// TestOneReading: however many ask, one reads, and it is read again when it is old.
func TestOneReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene()
		s.run("default", "web", map[string]Figures{"a": uses(1e9, 5)})
		m := s.meter(t)
		ask := func() {
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() {
					if err := m.WriteResource(t.Context(), new(bytes.Buffer)); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
		}
		ask()
		ask()
		if s.reads != 1 {
			t.Errorf("200 who ask have it read %d times", s.reads)
		}
		time.Sleep(fresh)
		ask()
		if s.reads != 2 {
			t.Errorf("an old reading was read %d times anew", s.reads-1)
		}
	})
}

// TestAskAndGo: who asks and goes does not have it read again and again, and who
// waits for another's reading may give up.
func TestAskAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene()
		s.wait = make(chan struct{})
		m := s.meter(t)
		ctx, gone := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := m.Read(ctx)
			ended <- err
		}()
		synctest.Wait()
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := m.Read(impatient); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who waits for a reading that hangs gets %v", err)
		}
		gone()
		close(s.wait)
		if err := <-ended; err != nil {
			t.Errorf("the reading ended with who asked: %v", err)
		}
		if _, err := m.Read(t.Context()); err != nil || s.reads != 1 {
			t.Errorf("read %d times, %v", s.reads, err)
		}
	})
}

// TestRate: a rate is that between two readings; a counter that began anew has none.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene()
		s.run("default", "web", map[string]Figures{"a": uses(10e9, 5), "b": uses(10e9, 5)})
		m := s.meter(t)
		first, err := m.Summary(t.Context(), true)
		if err != nil || first.Node.CPU.UsageNanoCores != nil || first.Pods[0].Containers[0].CPU.UsageNanoCores != nil {
			t.Errorf("a rate of one reading, %v", err)
		}
		time.Sleep(2 * fresh)
		const a, b = "/kubepods/poduid-web/id-web-a", "/kubepods/poduid-web/id-web-b"
		s.cgroups[a], s.cgroups[b] = uses(15e9, 5), uses(1e9, 5)
		next, err := m.Summary(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		all := next.Pods[0].Containers
		if all[0].CPU.UsageNanoCores == nil || *all[0].CPU.UsageNanoCores != 5e9/10 || all[1].CPU.UsageNanoCores != nil {
			t.Errorf("%+v and %+v", all[0].CPU, all[1].CPU)
		}
	})
}

func (s *scene) cadvisor(t *testing.T, m *Meter) figures {
	t.Helper()
	return scrape(t, func(ctx context.Context, w *bytes.Buffer) error { return m.WriteCadvisor(ctx, w) })
}

// TestCadvisor: the names that dashboards look for, with cAdvisor's labels.
func TestCadvisor(t *testing.T) {
	s := newScene()
	s.run("default", "web", map[string]Figures{"a": {
		Usage: Usage{CPUNanos: 3e9, CPUUserNanos: 2e9, CPUSystemNanos: 1e9, CPUPeriods: 10, CPUThrottled: 4, CPUThrottledTime: 5e8,
			MemoryBytes: 100, MemoryWorkingSet: 80, MemoryAnon: 60, MemoryFile: 30, MemoryMapped: 20, MemoryPeak: 120, PageFaults: 9, MajorPageFaults: 1, Pids: 4},
		Devices:  []Device{{"/dev/sda", 1, 2, 3, 4}},
		OOMKills: 2, LimitHits: 7, Pressure: map[string]Pressure{"io": {Some: Share{Total: 2e6}, Full: Share{Total: 1e6}}},
		CPUWeight: new(uint64(39)), CPUQuota: new(uint64(50000)), CPUPeriod: new(uint64(100000)), MemoryMax: new(uint64(200)),
	}})
	got := s.cadvisor(t, s.meter(t))
	const id = "container=a,id=/kubepods/poduid-web/id-web-a,image=img,name=id-web-a,namespace=default,pod=web"
	const podID = "container=,id=/kubepods/poduid-web,image=,name=sb-web,namespace=default,pod=web"
	const node = "container=,id=/,image=,name=,namespace=,pod="
	for name, want := range map[string]map[string]float64{
		"container_cpu_usage_seconds_total":                {id + ",cpu=total": 3, node + ",cpu=total": 90, podID + ",cpu=total": 3},
		"container_cpu_user_seconds_total":                 {id: 2},
		"container_cpu_system_seconds_total":               {id: 1},
		"container_cpu_cfs_periods_total":                  {id: 10},
		"container_cpu_cfs_throttled_periods_total":        {id: 4},
		"container_cpu_cfs_throttled_seconds_total":        {id: .5},
		"container_memory_working_set_bytes":               {id: 80, node: 700, podID: 80},
		"container_memory_rss":                             {id: 60},
		"container_memory_cache":                           {id: 30},
		"container_memory_mapped_file":                     {id: 20},
		"container_memory_usage_bytes":                     {id: 100},
		"container_memory_max_usage_bytes":                 {id: 120},
		"container_memory_failcnt":                         {id: 7},
		"container_memory_failures_total":                  {id + ",failure_type=pgfault,scope=hierarchy": 9, id + ",failure_type=pgmajfault,scope=hierarchy": 1},
		"container_fs_reads_total":                         {id + ",device=/dev/sda": 1},
		"container_fs_writes_total":                        {id + ",device=/dev/sda": 2},
		"container_fs_reads_bytes_total":                   {id + ",device=/dev/sda": 3},
		"container_fs_writes_bytes_total":                  {id + ",device=/dev/sda": 4},
		"container_fs_limit_bytes":                         {node + ",device=/dev/a": 100, node + ",device=/dev/b": 1000},
		"container_fs_usage_bytes":                         {node + ",device=/dev/a": 50, node + ",device=/dev/b": 500},
		"container_network_receive_bytes_total":            {podID + ",interface=eth0": 1, node + ",interface=eth0": 11},
		"container_network_transmit_bytes_total":           {podID + ",interface=eth0": 2},
		"container_network_receive_packets_total":          {podID + ",interface=eth0": 3},
		"container_network_transmit_packets_dropped_total": {podID + ",interface=eth0": 4},
		"container_oom_events_total":                       {id: 2},
		"container_pressure_io_waiting_seconds_total":      {id: 2},
		"container_pressure_io_stalled_seconds_total":      {id: 1},
		"container_spec_cpu_quota":                         {id: 50000},
		"container_spec_cpu_period":                        {id: 100000},
		"container_spec_cpu_shares":                        {id: 998},
		"container_spec_memory_limit_bytes":                {id: 200, node: 0},
		"container_start_time_seconds":                     {id: 3000, podID: 2000, node: 1000},
		"container_threads":                                {id: 4},
		"container_scrape_error":                           {"": 0},
		"machine_cpu_cores":                                {"boot_id=b,machine_id=,system_uuid=": 2},
		"machine_memory_bytes":                             {"boot_id=b,machine_id=,system_uuid=": 1000},
	} {
		for labels, v := range want {
			if got[name][labels] != v {
				t.Errorf("%s{%s} is %v, want %v of %v", name, labels, got[name][labels], v, slices.Collect(maps.Keys(got[name])))
			}
		}
	}
	if n := len(got["container_cpu_cfs_periods_total"]); n != 1 {
		t.Errorf("%d cgroups without a quota have periods", n-1)
	}
}

// TestSummary: the whole has what evictions and dashboards look for, the brief one
// only processors and memory.
func TestSummary(t *testing.T) {
	s := newScene()
	limited := uses(1e9, 50)
	limited.MemoryMax, limited.Pids = new(uint64(80)), 3
	p := s.run("default", "web", map[string]Figures{"a": limited})
	s.layers["id-web-a"] = Space{Bytes: 1000, Inodes: 10}
	s.volumes = map[types.UID][]Volume{p.UID: {
		{Name: "scratch", FileSystem: FileSystem{Used: 300, At: time.Now()}, InodesUsed: 3},
		{Name: "data", Claim: "claim", Own: true, FileSystem: FileSystem{Used: 1, Capacity: 9, Available: 5, Inodes: 4, InodesFree: 2}, InodesUsed: 2},
		{Name: "secret", Own: true, FileSystem: FileSystem{Used: 77, Capacity: 99}},
	}}
	m := s.meter(t)
	brief, err := m.Summary(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if n := brief.Node; n.Fs != nil || n.Network != nil || n.Runtime != nil || *n.CPU.UsageCoreNanoSeconds != 90e9 || *n.Memory.AvailableBytes != 300 || n.NodeName != "node" {
		t.Errorf("the brief node is %+v", n)
	}
	if one := brief.Pods[0]; one.EphemeralStorage != nil || one.Network != nil || one.Containers[0].Rootfs != nil || *one.Containers[0].Memory.AvailableBytes != 30 ||
		*one.Containers[0].CPU.UsageCoreNanoSeconds != 1e9 || one.PodRef.Namespace != "default" || len(s.counted) != 0 {
		t.Errorf("the brief pod is %+v; counted %v", one, s.counted)
	}
	whole, err := m.Summary(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if n := whole.Node; *n.Fs.AvailableBytes != 40 || *n.Fs.InodesUsed != 12 || *n.Runtime.ImageFs.UsedBytes != 500 || *n.Network.RxBytes != 11 || n.SystemContainers[0].Name != "pods" {
		t.Errorf("the node is %+v", n)
	}
	one := whole.Pods[0]
	c := one.Containers[0]
	if *c.Rootfs.UsedBytes != 1000 || *c.Rootfs.CapacityBytes != 1000 || *c.Logs.UsedBytes != 7 || *c.Logs.CapacityBytes != 100 {
		t.Errorf("the container's disk is %+v, %+v", c.Rootfs, c.Logs)
	}
	if *one.EphemeralStorage.UsedBytes != 1307 || *one.EphemeralStorage.InodesUsed != 14 || *one.Network.TxBytes != 2 || one.Network.Name != "eth0" {
		t.Errorf("the pod is %+v", one)
	}
	if v := one.VolumeStats; len(v) != 3 || *v[0].UsedBytes != 300 || *v[0].CapacityBytes != 100 || v[1].PVCRef.Name != "claim" || *v[1].CapacityBytes != 9 || v[2].PVCRef != nil {
		t.Errorf("the volumes are %+v", v)
	}
}

// TestLayers: what containers have written is counted once a minute; a layer too
// large to be counted in time comes after all others, and keeps none from its turn.
func TestLayers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene()
		for _, name := range []string{"huge", "one", "two"} {
			s.run("default", name, map[string]Figures{"c": uses(1, 1)})
		}
		s.slow["id-huge-c"] = true
		m := s.meter(t)
		read := func() *Disks {
			d, err := m.Disks(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		read()
		if !slices.Equal(s.counted, []string{"id-huge-c"}) {
			t.Errorf("counted %v", s.counted)
		}
		time.Sleep(fresh)
		if d := read(); len(d.Layers) != 2 || len(s.counted) != 3 {
			t.Errorf("counted %v, told of %v", s.counted, d.Layers)
		}
		time.Sleep(fresh)
		if read(); len(s.counted) != 3 {
			t.Errorf("counted again: %v", s.counted)
		}
		time.Sleep(layerPeriod)
		s.states["uid-one"] = s.states["none"]
		if d := read(); len(d.Layers) != 1 {
			t.Errorf("told of %v although one has ended", d.Layers)
		}
	})
}

// TestDaemon: pods and containers are counted, claims told once.
func TestDaemon(t *testing.T) {
	s := newScene()
	a := s.run("default", "a", map[string]Figures{"c": uses(1, 1), "d": uses(1, 1)})
	b := s.run("default", "b", map[string]Figures{"c": uses(1, 1)})
	b.Annotations = map[string]string{sourceKey: "file"}
	a.Spec.Volumes = []corev1.Volume{
		{VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "shared"}}},
	}
	waits := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "waits", UID: "uid-waits"}}
	waits.Spec.Volumes = append(a.Spec.Volumes[:1:1], corev1.Volume{VolumeSource: corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}})
	s.pods = append(s.pods, waits)
	shared := []Volume{{Name: "v", Claim: "shared", Own: true, FileSystem: FileSystem{Capacity: 10, Available: 4, Used: 6}}}
	s.volumes = map[types.UID][]Volume{a.UID: shared, b.UID: shared}
	m := s.meter(t)
	m.cfg.Certificates = func() (client, serving Certificate) {
		return Certificate{End: time.Now().Add(time.Hour), Errors: 3}, Certificate{End: time.Now().Add(2 * time.Hour)}
	}
	got := scrape(t, func(ctx context.Context, w *bytes.Buffer) error { return m.WriteDaemon(ctx, w) })
	for name, want := range map[string]map[string]float64{
		"kubelet_node_name":          {"node=node": 1},
		"kubelet_running_pods":       {"": 2},
		"kubelet_running_containers": {"container_state=running": 3, "container_state=exited": 0, "container_state=created": 0},
		"kubelet_desired_pods":       {"static=": 2, "static=true": 1},
		"volume_manager_total_volumes": {
			"plugin_name=kubernetes.io/empty-dir,state=desired_state_of_world": 2, "plugin_name=kubernetes.io/empty-dir,state=actual_state_of_world": 1,
			"plugin_name=kubernetes.io/local-volume,state=desired_state_of_world": 1, "plugin_name=kubernetes.io/local-volume,state=actual_state_of_world": 1,
		},
		"kubelet_certificate_manager_client_expiration_renew_errors": {"": 3},
		"kubelet_server_expiration_renew_errors":                     {"": 0},
		"kubelet_volume_stats_capacity_bytes":                        {"namespace=default,persistentvolumeclaim=shared": 10},
		"kubelet_volume_stats_available_bytes":                       {"namespace=default,persistentvolumeclaim=shared": 4},
	} {
		if !maps.Equal(got[name], want) {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if ttl := got["kubelet_certificate_manager_client_ttl_seconds"][""]; ttl < 3500 || ttl > 3600 {
		t.Errorf("the certificate lasts %v s", ttl)
	}
	if ttl := got["kubelet_certificate_manager_server_ttl_seconds"][""]; ttl < 7100 || ttl > 7200 {
		t.Errorf("the serving certificate lasts %v s", ttl)
	}
}
