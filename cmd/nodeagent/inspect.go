package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/internal/cgroups"
	"nodeagent/internal/diag"
)

// inspectDocument is the document of "inspect".
type inspectDocument struct {
	diag.TypeMeta `json:",inline"`
	Source        string `json:"source"`
	*diag.Inspection
}

func inspectCommand() *cobra.Command {
	var out format
	var container string
	cmd := &cobra.Command{
		Use:   "inspect POD",
		Short: "Show what a pod asked for and what the kernel gave it",
		Long: "Show, for each container of a pod, what was asked for and what the kernel really has: cgroup and limits,\n" +
			"oom_score_adj of every process, namespaces, capabilities, seccomp and mounts. What differs is marked.\n" +
			"Values of environment variables are not shown: they may be secrets.",
		Example: "  nodeagent inspect web\n  nodeagent inspect kube-system/web -c app\n  nodeagent inspect web -o json | jq '.containers[].drift'",
	}
	outputFlag(cmd, &out, formatTable, formatJSON, formatYAML)
	cmd.Flags().StringVarP(&container, "container", "c", "", "only this container")
	completePods(cmd)
	return verb(cmd, cobra.ExactArgs(1), func(cmd *cobra.Command, n *node, args []string) error {
		view, err := n.look(cmd)
		if err != nil {
			return err
		}
		p, c, err := view.Find(args[0])
		if err != nil {
			return err
		}
		if container != "" {
			if c, err = p.Container(container); err != nil {
				return err
			}
		}
		tree, err := n.tree()
		if err != nil {
			return err
		}
		in := &diag.Inspector{Specs: n.runtime, Cgroups: tree, RunDir: n.cfg.Agent.RunDir, RootDir: n.cfg.RootDir, Proc: "/proc"}
		found, err := in.Inspect(cmd.Context(), p, c)
		if err != nil {
			return n.reach(err)
		}
		if out != formatTable {
			return show(cmd.OutOrStdout(), out, inspectDocument{diag.Of("PodInspection"), view.Source, found})
		}
		return inspectText(cmd.OutOrStdout(), found, time.Now())
	})
}

// page writes an inspection for people.
type page struct {
	b     bytes.Buffer
	level int
}

// line writes a field; value may be a pod's and is escaped.
func (p *page) line(name, format string, args ...any) {
	value := diag.Escape(fmt.Sprintf(format, args...))
	fmt.Fprintf(&p.b, "%s%-*s %s\n", strings.Repeat("  ", p.level), 22-2*p.level, name+":", value)
}

func (p *page) title(name string) {
	fmt.Fprintf(&p.b, "%s%s\n", strings.Repeat("  ", p.level), diag.Escape(name))
}

func inspectText(w io.Writer, in *diag.Inspection, now time.Time) error {
	p := &page{}
	p.line("Pod", "%s", in.Pod.FullName())
	p.line("UID", "%s", in.Pod.UID)
	p.line("Status", "%s", in.Pod.Status)
	if in.Pod.Message != "" {
		p.line("Message", "%s", in.Pod.Message)
	}
	p.line("IPs", "%s", orDash(strings.Join(in.Pod.IPs, ", ")))
	p.line("Age", "%s", ago(now, in.Pod.Created))
	for _, s := range in.Pod.Sandboxes {
		p.line("Sandbox", "%s %s %s", short(s.ID), s.State, s.Reason)
	}
	if in.Cgroup != nil {
		p.cgroup(*in.Cgroup)
	}
	for _, v := range in.Volumes {
		p.line("Volume", "%s", volumeText(v))
	}
	for i := range in.Containers {
		p.container(&in.Containers[i], now)
	}
	for _, m := range in.Missed {
		p.line("Not read", "%s", m)
	}
	_, err := w.Write(p.b.Bytes())
	return err
}

func (p *page) container(c *diag.ContainerInspection, now time.Time) {
	p.b.WriteByte('\n')
	p.title("Container " + c.Name)
	p.level = 1
	defer func() { p.level = 0 }()
	p.line("ID", "%s", orDash(c.ID))
	p.line("State", "%s (run %d, %s)", containerState(&c.Container), c.Attempt, ago(now, firstTime(c.Finished, c.Started, c.Created)))
	if wait := waitsFor(&c.Container); wait != "" {
		p.line("Waits for", "%s", wait)
	}
	if c.Message != "" {
		p.line("Message", "%s", c.Message)
	}
	p.line("Image", "%s", c.Image)
	if c.LogPath != "" {
		p.line("Log", "%s", c.LogPath)
	}
	if l := c.Log; l != nil {
		p.line("Log written", "%s in %d lines, %d rotations, %s lost", size(l.Bytes), l.Lines, l.Rotations, size(l.DroppedBytes))
	}
	if c.Asked != nil {
		p.asked(c.Asked)
	}
	if c.Kernel != nil {
		p.kernel(c.Kernel)
	}
	p.drift(c)
	for _, m := range c.Missed {
		p.line("Not read", "%s", m)
	}
}

func firstTime(all ...*time.Time) *time.Time {
	for _, t := range all {
		if t != nil {
			return t
		}
	}
	return nil
}

func (p *page) asked(a *diag.Asked) {
	p.title("Asked for")
	p.level++
	defer func() { p.level-- }()
	p.line("Command", "%q in %s", a.Args, a.Cwd)
	p.line("User", "%d:%d %v", a.UID, a.GID, a.Groups)
	p.line("Capabilities", "%s", capabilities(a.Capabilities.Bounding))
	p.line("Security", "no_new_privs %t, seccomp %s, read-only root %t", a.NoNewPrivs, a.Seccomp, a.ReadonlyRootfs)
	if a.OOMScoreAdj != nil {
		p.line("oom_score_adj", "%d", *a.OOMScoreAdj)
	}
	p.line("Cgroup", "%s", a.Cgroup)
	p.line("Limits", "%s", limits(
		limit("cpu shares", a.Limits.CPUShares), limit("quota µs", a.Limits.CPUQuota), limit("period µs", a.Limits.CPUPeriod),
		limit("memory", a.Limits.MemoryMax), limit("pids", a.Limits.Pids)))
	for _, kind := range slices.Sorted(maps.Keys(a.Namespaces)) {
		p.line("Namespace "+kind, "%s", a.Namespaces[kind])
	}
	for _, m := range a.Mounts {
		p.line("Mount", "%s from %s (%s)", m.Destination, orDash(m.Source), strings.Join(m.Options, ","))
	}
}

func (p *page) kernel(k *diag.Kernel) {
	p.title("The kernel has")
	p.level++
	defer func() { p.level-- }()
	p.line("User", "%d:%d %v", k.Init.UID, k.Init.GID, k.Init.Groups)
	p.line("Capabilities", "%s", capabilities(k.Init.Capabilities.Bounding))
	p.line("Security", "no_new_privs %t, seccomp %s (%d filters)", k.Init.NoNewPrivs, k.Init.Seccomp, k.Init.Filters)
	p.cgroup(k.Cgroup)
	for _, kind := range slices.Sorted(maps.Keys(k.Namespaces)) {
		n := k.Namespaces[kind]
		where := ""
		if n.Host {
			where = " (host)"
		}
		p.line("Namespace "+kind, "%d%s", n.ID, where)
	}
	for _, m := range k.Mounts {
		p.line("Mount", "%s %s %s (%s)", m.Destination, m.Type, m.Root, m.Options)
	}
	for _, x := range k.Processes {
		p.line("Process", "%d %s %s oom_score_adj %d score %d", x.PID, x.State, x.Comm, x.OOMScoreAdj, x.OOMScore)
	}
}

func (p *page) cgroup(f cgroups.Facts) {
	paths := slices.Compact(slices.Sorted(maps.Values(f.Paths)))
	p.line("Cgroup", "%s (%s)", strings.Join(paths, ", "), f.Mode)
	l := f.Limits
	p.line("Limits", "%s", limits(
		limit("cpu shares", l.CPUShares), limit("cpu weight", l.CPUWeight), limit("quota µs", l.CPUQuota), limit("period µs", l.CPUPeriod),
		limit("memory", l.MemoryMax), limit("pids", l.Pids)))
	p.line("Uses", "cpu %s, memory %s (working set %s), %d processes, %d OOM kills",
		time.Duration(f.Usage.CPUNanos).Round(time.Millisecond), size(f.Usage.MemoryBytes), size(f.Usage.MemoryWorkingSet), f.Usage.Pids, f.OOM.Kills)
}

func (p *page) drift(c *diag.ContainerInspection) {
	switch {
	case c.Asked == nil || c.Kernel == nil:
		return
	case len(c.Drift) == 0:
		p.line("Compared", "the kernel has what was asked for")
	}
	for _, d := range c.Drift {
		p.line("DIFFERS", "%s: asked for %s, the kernel has %s", d.What, d.Asked, d.Kernel)
	}
}

func limit[T int64 | uint64](name string, v *T) string {
	if v == nil || int64(*v) < 0 {
		return ""
	}
	if name == "memory" {
		return name + " " + size(uint64(*v))
	}
	return name + " " + strconv.FormatUint(uint64(*v), 10)
}

func limits(all ...string) string {
	set := slices.DeleteFunc(all, func(s string) bool { return s == "" })
	if len(set) == 0 {
		return "none"
	}
	return strings.Join(set, ", ")
}

func capabilities(all []string) string {
	if len(all) == 0 {
		return "none"
	}
	var b []string
	for _, c := range all {
		b = append(b, strings.TrimPrefix(c, "CAP_"))
	}
	return strings.Join(b, " ")
}
