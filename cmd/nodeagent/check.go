package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go/features"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nodeagent/internal/config"
	"nodeagent/internal/cri"
	"nodeagent/internal/diag"
	"nodeagent/internal/hostcheck"
	"nodeagent/internal/hostcheck/gather"
)

// checkReport is the document of "check".
type checkReport struct {
	diag.TypeMeta `json:",inline"`
	Findings      []hostcheck.Finding `json:"findings"`
	Unseen        []hostcheck.Unseen  `json:"unseen"` // what could not be looked at
	Errors        int                 `json:"errors"`
	Warnings      int                 `json:"warnings"`
	Infos         int                 `json:"infos"`
}

func checkCommand() *cobra.Command {
	var out format
	var flags config.Flags
	var strict bool
	var limit time.Duration
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Find what keeps this host from running pods",
		Long: "Look at the kernel, cgroups, containerd, network, disks, limits and services of this host, and show\n" +
			"what keeps the daemon from running pods well: what was seen, where it comes from and what cures it.\n" +
			"Each finding has an ID that stays the same; docs/checks.md has them all.\n\n" +
			"It changes nothing, needs neither the daemon nor containerd, and says what it could not look at, which\n" +
			"is much for who is not root. No look takes longer than --timeout, and all are taken at once.\n\n" +
			"Ends with 3 if there is an error, with --strict also if there is a warning; else with 0.",
		Example: "  nodeagent check --config /etc/nodeagent/config.yaml\n  nodeagent check -o json | jq '.findings[].id'",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			report := check(cmd.Context(), flags, limit)
			if err := showCheck(cmd, out, report); err != nil {
				return err
			}
			if report.Errors > 0 || strict && report.Warnings > 0 {
				return exitCode(exitFindings)
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	configFlags(cmd, &flags)
	outputFlag(cmd, &out, formatTable, formatWide, formatJSON, formatYAML)
	cmd.Flags().DurationVar(&limit, "timeout", gather.Limit, "of one look, for a machine that is busy or slow")
	cmd.Flags().BoolVar(&strict, "strict", false, "end with 3 on warnings too")
	return cmd
}

func check(ctx context.Context, flags config.Flags, limit time.Duration) checkReport {
	cfg, invalid := checkedConfig(flags)
	c := hostConfig(cfg, flags)
	c.Limit = limit
	if invalid != nil {
		c.Host.Invalid = invalid.Error()
	}
	if !cfg.Agent.ProxyOnly { // whose runtime is another agent's
		if r, err := openRuntime(cfg, limit); err == nil {
			defer r.Close()
			c.About, c.Own = aboutContainerd(r, cfg), ownPods(r)
		}
	}
	facts := gather.Gather(ctx, c)
	all := hostcheck.Judge(facts)
	return checkReport{
		diag.Of("CheckReport"), all, append([]hostcheck.Unseen{}, facts.Unseen...),
		hostcheck.Count(all, hostcheck.Error), hostcheck.Count(all, hostcheck.Warning), hostcheck.Count(all, hostcheck.Info),
	}
}

// checkedConfig is the configuration, or what is in force without its files if
// they cannot be used, and why.
func checkedConfig(flags config.Flags) (*config.Config, error) {
	cfg, err := config.Load(flags)
	if err == nil {
		return cfg, nil
	}
	less := flags
	less.Config, less.ConfigDir = "", ""
	for _, f := range []config.Flags{less, {}} {
		if cfg, again := config.Load(f); again == nil {
			return cfg, err
		}
	}
	return &config.Config{}, err // the host has no name; what is left is empty
}

// hostConfig is what the check must know of the configuration.
func hostConfig(cfg *config.Config, flags config.Flags) gather.Config {
	k, a := &cfg.Kubelet, &cfg.Agent
	r := a.Runtimes[""]
	c := gather.Config{
		Host: hostcheck.Config{
			ProxyOnly: a.ProxyOnly,
			Unused:    cfg.Unused, Files: rootFiles(flags, k.StaticPodPath), Loose: laxer(cfg),
			FailSwapOn:            k.FailSwapOn == nil || *k.FailSwapOn,
			ProtectKernelDefaults: k.ProtectKernelDefaults,
			Seccomp:               k.SeccompDefault == nil || *k.SeccompDefault,
			CgroupDriver:          k.CgroupDriver, CgroupRoot: cmp.Or(k.CgroupRoot, "/"),
			Shim: r.Shim, Snapshotter: r.Snapshotter, RootDir: filepath.Clean(cfg.RootDir), CIDRs: a.PodNetwork.CIDRs,
			Ports: ports(cfg),
		},
		Containerd: cfg.Endpoint(), RunDir: a.RunDir, PodsDir: filepath.Join(cfg.RootDir, "pods"),
		Dirs: map[string]string{
			gather.UseRoot: cfg.RootDir, "state": a.StateDir, "run": a.RunDir, "logs": k.PodLogsDir,
		},
		Bridge: a.PodNetwork.Bridge, CNIConfDir: a.PodNetwork.CNIConfDir, CNIBinDir: a.PodNetwork.CNIBinDir,
		NodeName: cfg.NodeName, NodeIPs: cfg.NodeIPs,
	}
	if k.ResolverConfig != nil {
		c.Resolv = *k.ResolverConfig
	}
	if k.PodPidsLimit != nil {
		c.PodPids = *k.PodPidsLimit
	}
	return c
}

// ports are those of a node's agent that concern this configuration. Those of the
// service proxy do only where this daemon is it: else they are kube-proxy's.
func ports(cfg *config.Config) []hostcheck.Port {
	var all []hostcheck.Port
	add := func(number int, use string, now, later bool) {
		if number > 0 {
			all = append(all, hostcheck.Port{Number: number, Use: use, Now: now, Later: later})
		}
	}
	if k := &cfg.Kubelet; !cfg.Agent.ProxyOnly {
		add(int(cmp.Or(k.Port, nodeAPIPort)), "node API: port", cfg.Cluster != nil, false)
		if k.HealthzPort != nil {
			add(int(*k.HealthzPort), "healthzPort", true, false)
		}
	}
	if cfg.Services() {
		p := cfg.Proxy
		add(portOf(p.HealthzBindAddress), "services: healthzBindAddress", true, !p.BindAddressHardFail)
		add(portOf(p.MetricsBindAddress), "services: metricsBindAddress", true, !p.BindAddressHardFail)
	}
	return all
}

// nodeAPIPort is that of a node API whose configuration says nothing; one that
// stands alone has no default.
const nodeAPIPort = 10250

// portOf is the port of an address, which was judged with the configuration.
func portOf(addr string) int {
	_, text, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(text)
	return n
}

// laxer are the settings that are laxer than the daemon's defaults; since those
// hold where the file is silent, somebody wrote each of these.
func laxer(cfg *config.Config) []string {
	k := &cfg.Kubelet
	var all []string
	add := func(is bool, field string, value any) {
		if is {
			all = append(all, fmt.Sprintf("%s: %v", field, value))
		}
	}
	add(k.SeccompDefault != nil && !*k.SeccompDefault, "seccompDefault", false)
	add(k.FailSwapOn != nil && !*k.FailSwapOn, "failSwapOn", false)
	if p := k.PodPidsLimit; p != nil {
		add(*p <= 0 || *p > defaultPodPids, "podPidsLimit", *p)
	}
	add(len(k.AllowedUnsafeSysctls) > 0, "allowedUnsafeSysctls", k.AllowedUnsafeSysctls)
	add(k.HealthzBindAddress != "" && !strings.HasPrefix(k.HealthzBindAddress, "127.") && k.HealthzBindAddress != "::1", "healthzBindAddress", k.HealthzBindAddress)
	return all
}

const defaultPodPids = 4096

// rootFiles are the files and directories whose writers decide what runs as root.
func rootFiles(flags config.Flags, manifests string) []hostcheck.File {
	paths := []string{flags.Config, flags.ConfigDir, manifests}
	if flags.ConfigDir != "" {
		dropins, _ := filepath.Glob(filepath.Join(flags.ConfigDir, "*.conf"))
		paths = append(paths, dropins...)
	}
	if st, err := os.Stat(manifests); err == nil && st.IsDir() {
		for _, ext := range []string{"*.yaml", "*.yml", "*.json"} {
			files, _ := filepath.Glob(filepath.Join(manifests, ext))
			paths = append(paths, files...)
		}
	}
	var all []hostcheck.File
	for _, p := range paths {
		var st unix.Stat_t
		if p != "" && unix.Stat(p, &st) == nil {
			all = append(all, hostcheck.File{Path: p, Mode: st.Mode & 0o7777, UID: st.Uid})
		}
	}
	return all
}

// aboutContainerd asks containerd through the runtime.
func aboutContainerd(r *cri.Native, cfg *config.Config) func(context.Context) (gather.About, error) {
	return func(ctx context.Context) (gather.About, error) {
		a, err := r.About(ctx)
		if err != nil {
			return gather.About{}, err
		}
		out := gather.About{Runtime: hostcheck.Runtime{Version: a.Version, CRI: a.CRI, CRISandboxes: a.CRIPods}}
		if a.Snapshotters != nil {
			out.Snapshotters = map[string]string{}
		}
		for name, s := range a.Snapshotters {
			out.Snapshotters[name] = s.Err
			if name == cfg.Agent.Runtimes[""].Snapshotter {
				out.ImageRoot = s.Root
			}
		}
		if a.Shim != nil {
			out.Shim = a.Shim.Error()
		}
		if a.Runc != nil {
			out.Runc = a.Runc.Error()
		}
		if a.Features != nil {
			out.RuncVersion, out.RuncLacks = a.Features.Annotations["org.opencontainers.runc.version"], lacks(a.Features)
		}
		return out, nil
	}
}

// lacks are the features of the OCI runtime that pods may ask for and that it
// has not. Every field may be missing: then the runtime is older than it.
func lacks(f *features.Features) []string {
	var all []string
	add := func(is *bool, name string) {
		if is == nil || !*is {
			all = append(all, name)
		}
	}
	if f.Linux == nil {
		return []string{"Linux"}
	}
	l := f.Linux
	if l.Seccomp == nil {
		all = append(all, "seccomp")
	} else {
		add(l.Seccomp.Enabled, "seccomp")
	}
	if l.Cgroup != nil {
		add(l.Cgroup.V2, "cgroup v2")
		add(l.Cgroup.Systemd, "systemd cgroups")
	}
	for _, ns := range []string{"cgroup", "ipc", "mount", "network", "pid", "user", "uts"} {
		if !slices.Contains(l.Namespaces, ns) {
			all = append(all, ns+" namespace")
		}
	}
	return all
}

// ownPods are the pods that are ours by containerd's records.
func ownPods(r *cri.Native) func(context.Context) (map[string]bool, error) {
	return func(ctx context.Context) (map[string]bool, error) {
		all, err := r.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		own := map[string]bool{}
		for _, p := range all {
			own[string(p.UID)] = true
		}
		return own, nil
	}
}

func showCheck(cmd *cobra.Command, out format, r checkReport) error {
	if out == formatJSON || out == formatYAML {
		return show(cmd.OutOrStdout(), out, r)
	}
	if err := checkTable(r.Findings, out == formatWide).write(cmd.OutOrStdout()); err != nil {
		return err
	}
	for _, u := range r.Unseen {
		say(cmd, "not seen: %s: %s", u.What, u.Why)
	}
	say(cmd, "%d errors, %d warnings, %d infos", r.Errors, r.Warnings, r.Infos)
	return nil
}

func checkTable(all []hostcheck.Finding, wide bool) *table {
	t := &table{head: []string{"SEVERITY", "ID", "FINDING", "CURE"}}
	if wide {
		t.head = []string{"SEVERITY", "ID", "FINDING", "CAUSE", "CURE"}
	}
	for _, f := range all {
		row := []string{string(f.Severity), f.ID, f.Title + ": " + f.Seen, f.Cure}
		if wide {
			row = slices.Insert(row, 3, f.Cause)
		}
		t.add(row...)
	}
	return t
}

// refuse keeps the daemon from starting where it would harm what is not its: it
// removes pods' cgroups and directories that belong to no pod of its own.
func refuse(ctx context.Context, cfg *config.Config, log *slog.Logger) error {
	c := hostConfig(cfg, config.Flags{})
	c.Limit = 10 * time.Second // a busy machine is no reason to start without having looked
	facts := gather.Harm(ctx, c)
	for _, u := range facts.Unseen {
		log.Warn("could not look for other agents", "what", u.What, "why", u.Why)
	}
	var errs []error
	for _, f := range hostcheck.Judge(facts) {
		if f.Fatal {
			errs = append(errs, fmt.Errorf("%s: %s: %s; cure: %s", f.ID, f.Title, f.Seen, f.Cure))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("start beside others: %w", err)
	}
	return nil
}
