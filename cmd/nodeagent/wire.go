package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/cert"
	"nodeagent/internal/cgroups"
	"nodeagent/internal/config"
	"nodeagent/internal/cri"
	"nodeagent/internal/hook"
	"nodeagent/internal/net/news"
	"nodeagent/internal/net/podnet"
	"nodeagent/internal/net/proxy"
	"nodeagent/internal/pod"
	"nodeagent/internal/poddir"
	"nodeagent/internal/probe"
	"nodeagent/internal/server"
	"nodeagent/internal/shutdown"
	"nodeagent/internal/source"
	"nodeagent/internal/stats"
	"nodeagent/internal/volume"
	"nodeagent/internal/worker"
)

// daemon is the rooms of the daemon, fitted together; this file is the only
// place that does so.
type daemon struct {
	cfg         *config.Config
	log         *slog.Logger
	tree        *cgroups.Tree
	network     *podnet.Network
	ruleSockets news.Own // by which the rules of services are written
	runtime     *cri.Native
	probes      *probe.Set
	dirs        *poddir.Dirs
	hooks       *hook.Hooks
	volumes     *volume.Volumes
	set         *worker.Set
	source      *source.Manifests
	listens     []func() error // before anything runs: a port that is taken is told at once
	parts       []part
	latest      latestSnapshot // of the manifests
	objects     fileObjects
	health      *server.Health // nil: no port
	notify      *server.Notify
	stats       *stats.Meter
	count       *operations
	addrs       addresses

	latestURL latestSnapshot // of staticPodURL
	statics   statics

	cluster   *cluster           // nil: the node stands alone
	serving   *cert.Serving      // of a cluster's node
	services  *proxy.Proxy       // nil: another program programs the rules of services
	admission *admission         // of a cluster's node
	shutdown  *shutdown.Shutdown // nil: pods have no time at the end of the machine

	reload *reloader // nil: this one is only judged and never run
}

func newDaemon(cfg *config.Config, log *slog.Logger) (*daemon, error) {
	d := &daemon{cfg: cfg, log: log, count: newOperations(), latestURL: latestSnapshot{say: "cannot use a pod of staticPodURL"}}
	if cfg.Agent.ProxyOnly {
		return d, d.fitProxyOnly()
	}
	for _, fit := range []func() error{d.fitCluster, d.fitCgroups, d.fitNetwork, d.fitRuntime, d.fitDirs, d.fitVolumes, d.fitSet, d.fitStats, d.fitSource, d.fitNode, d.fitPods, d.fitShutdown, d.fitServices, d.fitNodeAPI, d.fitServers} {
		if err := fit(); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (d *daemon) fitCgroups() (err error) {
	d.tree, err = cgroups.New(cgroups.Config{
		Root: d.cfg.Kubelet.CgroupRoot, Driver: d.cfg.Kubelet.CgroupDriver,
		OOMGroup: !d.singleOOMKill(),
		OnChange: func(c cgroups.Change) { d.log.Warn("put a foreign change of a cgroup right", "change", c) },
	})
	d.parts = append(d.parts, part{"cgroups", d.tree.Run})
	return err
}

func (d *daemon) fitRuntime() (err error) {
	r := d.cfg.Agent.Runtimes[""]
	d.runtime, err = cri.New(cri.Config{
		Address: d.cfg.Endpoint(), Runtime: r.Shim, RuncBinary: r.Binary, Snapshotter: r.Snapshotter,
		Handlers:      handlers(d.cfg),
		SystemdCgroup: d.tree.Driver() == cgroups.Systemd,
		RunDir:        d.cfg.Agent.RunDir, StateDir: d.cfg.Agent.StateDir,
		SeccompDir: filepath.Join(d.cfg.RootDir, "seccomp"),
		LogMaxSize: d.cfg.LogMaxSize(), LogMaxFiles: int(*d.cfg.Kubelet.ContainerLogMaxFiles),
		Image:   imageConfig(d.cfg),
		Network: sandboxNetwork{d.network},
		Wake:    func(uid types.UID) { d.set.Wake(uid) },
		Changed: d.healthChanged, Relisted: d.count.relists.ended,
		Logger: d.log,
	})
	d.parts = append(d.parts, part{"runtime", d.runtime.Run}, part{"images", d.preload})
	return err
}

// handlers are the configured ways to run containers beside the default one.
func handlers(cfg *config.Config) map[string]cri.Handler {
	all := map[string]cri.Handler{}
	for _, name := range cfg.Handlers() {
		r := cfg.Agent.Runtimes[name]
		all[name] = cri.Handler{Runtime: r.Shim, Binary: r.Binary}
	}
	return all
}

func (d *daemon) fitDirs() (err error) {
	dns, err := newNodeDNS(d.cfg)
	if err != nil {
		return err
	}
	d.dirs, err = poddir.New(poddir.Config{
		RootDir: d.cfg.RootDir, PodLogsDir: d.cfg.Kubelet.PodLogsDir,
		ContainersLogsDir: d.cfg.ContainersLogsDir(), DNS: dns.read,
	})
	return err
}

func (d *daemon) fitVolumes() error {
	memory, err := memoryCapacity()
	if err != nil {
		return err
	}
	cfg := volume.Config{
		RootDir: d.cfg.RootDir, Limits: d.limits(), Memory: memory,
		Objects: &d.objects, Place: pod.Place{Allocatable: d.allocatable(memory)},
		RecursiveReadOnly: d.runtime.RecursiveReadOnly, StatsPeriod: d.cfg.Kubelet.VolumeStatsAggPeriod.Duration, Done: d.count.counts.volume, Logger: d.log,
	}
	if c := d.cluster; c != nil {
		cfg.Objects, cfg.Tokens, cfg.Claims, cfg.Await = c.objects, c.objects, c.objects, c.objects.Await
	}
	d.volumes, err = volume.New(cfg)
	return err
}

func (d *daemon) fitSet() error {
	node, err := d.node()
	if err != nil {
		return err
	}
	if err := d.fitProbes(); err != nil {
		return err
	}
	if d.hooks, err = hook.New(d.exec); err != nil {
		return err
	}
	cfg := worker.Config{
		Runtime: d.runtime, Sandboxes: d.count.sandboxes(d.runtime), Containers: d.count.containers(d.runtime), Stops: d.runtime, Hooks: d.hooks, Images: images{d.runtime.Images(), d.cfg, d.log, d.imagesChanged},
		Cgroups: d.count.counts.onCgroups(d.tree, d.tree.V2()), Network: d.network, Dirs: d.dirs, Files: d.dirs, Links: d.dirs,
		Volumes: d.volumes, EnvFiles: d.volumes, Probes: d.probes, Objects: &d.objects, Services: &d.objects,
		Figures: d.count.pods,
		Sources: d.sources(), Stray: d.stray, Node: node, Logger: d.log,
	}
	if c := d.cluster; c != nil {
		cfg.Objects, cfg.Services, cfg.Events = c.objects, c.services, d.count.starts.events(c.events)
	}
	d.set, err = worker.New(cfg)
	d.parts = append(d.parts, part{"pods", d.set.Run},
		part{"memory", func(ctx context.Context) error { return giveBack(ctx, d.set) }})
	return err
}

// node finds the facts of the node that pods depend on.
func (d *daemon) node() (worker.Node, error) {
	memory, err := memoryCapacity()
	if err != nil {
		return worker.Node{}, err
	}
	if err := d.addrs.learn(d); err != nil {
		return worker.Node{}, err
	}
	d.parts = append(d.parts, part{"node addresses", d.addrs.run})
	lowest, err := cgroups.ProbeOOMScoreAdj()
	if err != nil {
		return worker.Node{}, err
	}
	if lowest > oomScoreGuaranteed {
		d.log.Warn("give containers a higher oom_score_adj than their class has: this process may not lower scores; give it CAP_SYS_RESOURCE", "lowest", lowest)
	}
	return worker.Node{
		Addrs: d.addrs.ofHost, MemoryCapacity: memory, Allocatable: d.allocatable(memory), Limits: d.limits(),
		Unconfined: !*d.cfg.Kubelet.SeccompDefault,
		CgroupV2:   d.tree.V2(), SwapAccounting: d.tree.Swap(), MinOOMScoreAdj: lowest,
	}, nil
}

// limits are the operator's choices about cgroups, and the huge page sizes that
// the kernel can limit.
func (d *daemon) limits() pod.Limits {
	k := d.cfg.Kubelet
	l := pod.Limits{
		PodPids:       *k.PodPidsLimit,
		NoCPUQuota:    k.CPUCFSQuota != nil && !*k.CPUCFSQuota,
		SingleOOMKill: d.singleOOMKill(),
	}
	if k.CPUCFSQuotaPeriod != nil {
		l.CPUPeriod = uint64(k.CPUCFSQuotaPeriod.Microseconds())
	}
	if d.tree.Hugetlb() {
		l.PageSizes = d.tree.PageSizes()
	}
	return l
}

// singleOOMKill says that an OOM kill ends one process of a container, not all.
func (d *daemon) singleOOMKill() bool {
	single := d.cfg.Kubelet.SingleProcessOOMKill
	return single != nil && *single
}

// oomScoreGuaranteed is the lowest score that a container ever gets.
const oomScoreGuaranteed = -997

// allowed is what the configuration and the host let pods ask for.
func allowed(cfg *config.Config) pod.Allowed {
	return pod.Allowed{
		UnsafeSysctls: cfg.Kubelet.AllowedUnsafeSysctls, Handlers: cfg.Handlers(), NoAppArmor: cri.NoAppArmor(),
		SELinux: cri.SELinux(), Cluster: cfg.Cluster != nil,
	}
}

// checks are what must hold for the node to be called healthy.
func (d *daemon) checks() server.Checks {
	return append(d.progress(), server.Check{Name: "runtime", OK: d.runtime.Healthy})
}

// hung is for how long a loop may show no progress.
const hung = time.Minute

// progress checks the loops: the watchdog asks for these only, since a runtime or
// an API server that is away is no reason to kill the daemon.
func (d *daemon) progress() server.Checks {
	var all server.Checks
	if d.set != nil {
		all = append(all, server.Progress("pods", d.set.Progress, hung))
	}
	if c := d.cluster; c != nil {
		all = append(all, server.Progress("status", c.writer.Progress, hung), server.Progress("node", c.node.Progress, hung))
	}
	if d.services != nil {
		all = append(all, server.Progress("services", d.services.Progress, hung))
	}
	return all
}

// info is what the local socket shows beside the pods.
func (d *daemon) info() map[string]func() any {
	info := map[string]func() any{
		"awaited":  func() any { return d.set.Awaited() },
		"problems": func() any { return d.problems() },
		"config":   func() any { return d.shownConfig() },
		"probes":   func() any { return d.probes.Show() },
		"volumes":  func() any { return d.volumesTaken() },
		"version":  func() any { return version },
	}
	if c := d.cluster; c != nil {
		info["node"] = func() any { return c.node.Show() }
		info["untold"] = func() any { return c.writer.Untold() }
	}
	if d.services != nil {
		info["services"] = func() any { return d.services.Show() }
	}
	return info
}

// shownConfig is the configuration without what lets somebody in elsewhere.
func (d *daemon) shownConfig() *config.Config {
	shown := *d.cfg
	shown.Kubelet = *server.ShownConfig(&d.cfg.Kubelet)
	return &shown
}

func (d *daemon) fitServers() error {
	checks := d.checks()
	socket, err := server.NewSocket(server.SocketConfig{
		Path: filepath.Join(d.cfg.Agent.RunDir, "nodeagent.sock"), Pods: d.set, Logger: d.log,
		Info: d.info(), Metrics: d.figures(),
		Reload:  func() error { return d.reload.reload() },
		Restart: d.restart,
		Explain: d.explain,
		Service: d.tellService,
	})
	if err != nil {
		return err
	}
	d.listens = append(d.listens, socket.Listen)
	d.parts = append(d.parts, part{"local socket", socket.Run})
	if *d.cfg.Kubelet.HealthzPort > 0 {
		d.health = &server.Health{Addr: healthAddr(d.cfg), Checks: checks}
		d.listens = append(d.listens, d.health.Listen)
		d.parts = append(d.parts, part{"health port", d.health.Run})
	}
	d.notify = &server.Notify{Ready: d.latest.first(), Checks: d.progress(), Status: d.statusLine, Logger: d.log}
	d.parts = append(d.parts, part{"service manager", d.notify.Run})
	return nil
}

// healthAddr is where the health port listens.
func healthAddr(cfg *config.Config) string {
	return net.JoinHostPort(cfg.Kubelet.HealthzBindAddress, fmt.Sprint(*cfg.Kubelet.HealthzPort))
}

func (d *daemon) statusLine() string {
	running := 0
	pods := d.set.Pods()
	for _, p := range pods {
		if p.Status.Phase == corev1.PodRunning {
			running++
		}
	}
	return d.reload.status(fmt.Sprintf("%d pods, %d running", len(pods), running))
}

// stray removes what belongs to no pod, once every source may be trusted.
func (d *daemon) stray(ctx context.Context, keep func(types.UID) bool) error {
	// Volumes first: directories that hold one stay.
	errs := []error{d.volumes.Stray(ctx, keep), d.dirs.Stray(ctx, keep), d.runtime.Images().Sweep(ctx)}
	found, err := d.tree.Pods(ctx)
	errs = append(errs, err)
	for _, c := range found {
		if !keep(c.UID) {
			errs = append(errs, d.tree.RemovePod(ctx, c.UID))
		}
	}
	running, sandboxes := map[string]bool{}, map[string]bool{}
	for _, uid := range d.runtime.Pods() {
		state := d.runtime.Observe(uid)
		for _, s := range state.Sandboxes {
			sandboxes[s.ID] = !s.Stopped
		}
		for _, c := range state.Containers {
			running[c.ID] = c.State == pod.ContainerRunning
		}
	}
	d.probes.Stray(func(id string) bool { return running[id] })
	return errors.Join(append(errs, d.network.Prune(ctx, func(id string) bool { return sandboxes[id] }))...)
}
