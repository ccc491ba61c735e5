package main

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/cert"
	"nodeagent/internal/cgroups"
	"nodeagent/internal/net/podnet"
	"nodeagent/internal/node/machine"
	"nodeagent/internal/pod"
	"nodeagent/internal/stats"
)

// fitStats fits what tells of what the node and its pods use.
func (d *daemon) fitStats() (err error) {
	cfg := stats.Config{
		NodeName: d.cfg.NodeName, Machine: machineFacts(), Pods: d.set, Runtime: d.runtime,
		Cgroups: cgroupFigures{d.tree}, Network: networkFigures{}, Disk: &diskFigures{d: d},
		Own: ownCgroup(d.tree), Daemon: d.count.registry, Logger: d.log,
	}
	if c := d.cluster; c != nil {
		d.count.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "kubelet_mirror_pods", Help: "[ALPHA] The number of mirror pods the kubelet will try to create (one per admitted static pod)",
		}, c.server.mirrorCount))
		cfg.Certificates = func() (client, serving stats.Certificate) {
			return certificate(c.client.State()), certificate(d.serving.State())
		}
	}
	d.stats, err = stats.New(cfg)
	return err
}

func certificate(s cert.State) stats.Certificate {
	return stats.Certificate{End: s.NotAfter, Errors: s.Errors}
}

// figures are what is served at /metrics, by the name behind that.
func (d *daemon) figures() map[string]func(context.Context, io.Writer) error {
	return map[string]func(context.Context, io.Writer) error{
		"": d.stats.WriteDaemon, "resource": d.stats.WriteResource, "cadvisor": d.stats.WriteCadvisor,
		"slis":   d.count.slis.write(d.checks()),
		"probes": func(_ context.Context, w io.Writer) error { return d.probes.WriteMetrics(w) },
	}
}

// machineFacts are the machine's as far as they can be read: figures say nothing of
// the rest.
func machineFacts() stats.Machine {
	m, _ := machine.Read("/")
	out := stats.Machine{
		CPUs: m.CPUs, Memory: uint64(m.Memory), Swap: uint64(m.Swap),
		MachineID: m.MachineID, SystemUUID: m.SystemUUID, BootID: m.BootID, Kernel: m.Kernel, OSImage: m.OSImage,
	}
	var up unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) == nil {
		out.Boot = time.Now().Add(-time.Duration(up.Nano())).Truncate(time.Second)
	}
	return out
}

// ownCgroup is the daemon's cgroup; "" where it has none of its own.
func ownCgroup(tree *cgroups.Tree) string {
	f, err := tree.PIDFacts(context.Background(), os.Getpid())
	if err != nil {
		return ""
	}
	if tree.V2() {
		return f.Paths["unified"]
	}
	return f.Paths["memory"]
}

// cgroupFigures fits the cgroup tree to what figures need of it.
type cgroupFigures struct{ *cgroups.Tree }

// Figures implements stats.Cgroups.
func (c cgroupFigures) Figures(ctx context.Context, cgroup string) (stats.Figures, error) {
	f, err := c.Tree.Figures(ctx, cgroup)
	if err != nil {
		return stats.Figures{}, err
	}
	l := f.Limits
	out := stats.Figures{
		Usage: stats.Usage(f.Usage), OOMKills: f.OOM.Kills, LimitHits: f.OOM.Limit,
		CPUShares: l.CPUShares, CPUWeight: l.CPUWeight, CPUQuota: l.CPUQuota, CPUPeriod: l.CPUPeriod,
		MemoryMax: l.MemoryMax, SwapMax: l.SwapMax, PIDsMax: l.Pids,
	}
	for _, device := range f.Devices {
		out.Devices = append(out.Devices, stats.Device(device))
	}
	if len(f.Pressure) > 0 {
		out.Pressure = make(map[string]stats.Pressure, len(f.Pressure))
		for of, p := range f.Pressure {
			out.Pressure[of] = stats.Pressure{Some: stats.Share(p.Some), Full: stats.Share(p.Full)}
		}
	}
	return out, nil
}

type networkFigures struct{}

// Counters implements stats.Network.
func (networkFigures) Counters(ctx context.Context, netns []string) map[string][]stats.Interface {
	out := map[string][]stats.Interface{}
	for path, all := range podnet.ReadCounters(ctx, netns) {
		for _, c := range all {
			out[path] = append(out[path], stats.Interface(c))
		}
	}
	return out
}

// claimNames tells which claims of a pod are behind its volumes, by the name that
// their directories have, and what the pod calls them.
func (d *daemon) claimNames(p *corev1.Pod) map[string]stats.Volume {
	if d.cluster == nil {
		return nil
	}
	out := map[string]stats.Volume{}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if claim := pod.ClaimName(p, v); claim != "" {
			if pv, err := d.cluster.objects.Claim(p, v); err == nil {
				out[pv.Name] = stats.Volume{Name: v.Name, Claim: claim}
			}
		}
	}
	return out
}

// volumeFigures are the volumes of pods in the words of figures.
func (d *daemon) volumeFigures(pods []*corev1.Pod) map[types.UID][]stats.Volume {
	taken := d.volumesTaken()
	out := map[types.UID][]stats.Volume{}
	for _, p := range pods {
		claims := d.claimNames(p)
		for _, u := range taken[p.UID].Volumes {
			v := stats.Volume{Name: u.Name, Own: u.Capacity > 0, InodesUsed: u.Inodes}
			v.FileSystem = stats.FileSystem{
				At: taken[p.UID].At, Capacity: u.Capacity, Available: u.Available, Used: u.Bytes,
				Inodes: u.Files, InodesFree: u.Files - min(u.Files, u.Inodes),
			}
			if c, ok := claims[u.Name]; ok && u.Kind == localVolume {
				v.Name, v.Claim = c.Name, c.Claim
			}
			out[p.UID] = append(out[p.UID], v)
		}
	}
	return out
}
