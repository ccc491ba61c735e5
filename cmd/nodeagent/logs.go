package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/internal/diag"
	"nodeagent/internal/logs"
)

// logFlags are the flags of "logs".
type logFlags struct {
	container                         string
	follow, previous, timestamps, raw bool
	since                             string
	tail                              int
	limit                             int64
}

func logsCommand() *cobra.Command {
	var f logFlags
	cmd := &cobra.Command{
		Use:     "logs POD",
		Aliases: []string{"log"},
		Short:   "Show what a container wrote",
		Long: "Show the log of a container's newest run, or with --previous of the one before.\n" +
			"The log is read from its files: neither the daemon nor containerd is needed.\n" +
			"On a terminal, control characters in the log are shown as \\x1b and the like; --raw lets them through.",
		Example: "  nodeagent logs web\n  nodeagent logs -f --tail 20 kube-system/web -c app\n" +
			"  nodeagent logs --previous web\n  nodeagent logs --since 10m --timestamps web",
	}
	s := cmd.Flags()
	s.StringVarP(&f.container, "container", "c", "", "container of the pod; needed if it has several")
	s.BoolVarP(&f.follow, "follow", "f", false, "go on until the container ends")
	s.BoolVarP(&f.previous, "previous", "p", false, "the run before the newest one")
	s.BoolVar(&f.timestamps, "timestamps", false, "begin each line with its time")
	s.StringVar(&f.since, "since", "", "only what is younger: a duration such as 10m, or a time (RFC 3339)")
	s.IntVar(&f.tail, "tail", -1, "only so many lines from the end; -1: all")
	s.Int64Var(&f.limit, "limit-bytes", 0, "stop after so many bytes; 0: no limit")
	s.BoolVar(&f.raw, "raw", false, "do not escape control characters on a terminal")
	completePods(cmd)
	return verb(cmd, cobra.ExactArgs(1), func(cmd *cobra.Command, n *node, args []string) error {
		return showLog(cmd, n, args[0], f)
	})
}

func (f logFlags) options(now time.Time) (logs.ReadOptions, error) {
	o := logs.ReadOptions{Follow: f.follow, Tail: f.tail, Timestamps: f.timestamps, Limit: f.limit}
	if f.limit < 0 {
		return o, usageError{errors.New("--limit-bytes must not be negative")}
	}
	if f.since == "" {
		return o, nil
	}
	if d, err := time.ParseDuration(f.since); err == nil && d >= 0 {
		o.Since = now.Add(-d)
		return o, nil
	}
	at, err := time.Parse(time.RFC3339Nano, f.since)
	if err != nil {
		return o, usageError{fmt.Errorf("--since %q is neither a duration such as 10m nor a time such as %s", f.since, now.UTC().Format(time.RFC3339))}
	}
	o.Since = at
	return o, nil
}

func showLog(cmd *cobra.Command, n *node, name string, f logFlags) error {
	o, err := f.options(time.Now())
	if err != nil {
		return err
	}
	p, c, err := n.findLog(cmd, name, f.container)
	if err != nil {
		return err
	}
	path, err := diag.LogPath(n.cfg.Kubelet.PodLogsDir, p, c, f.previous)
	if err != nil {
		return err
	}
	if f.previous {
		o.Follow = false // it has ended
	}
	stdout, flushOut := shield(cmd.OutOrStdout(), f.raw)
	stderr, flushErr := shield(cmd.ErrOrStderr(), f.raw)
	err = diag.ReadLog(cmd.Context(), n.cfg.Agent.RunDir, c, path, o, func(ctx context.Context, o logs.ReadOptions) error {
		return logs.Read(ctx, path, o, stdout, stderr)
	})
	return errors.Join(err, flushOut(), flushErr())
}

// findLog finds the container whose log is meant; where nobody answers, by the
// files.
func (n *node) findLog(cmd *cobra.Command, name, container string) (*diag.Pod, *diag.Container, error) {
	view, err := n.eye.Look(cmd.Context())
	if errors.Is(err, diag.ErrUnreachable) {
		if view, err = diag.LookAtLogs(n.cfg.Kubelet.PodLogsDir); err != nil {
			return nil, nil, unreachableError{err}
		}
	}
	if err != nil {
		return nil, nil, err
	}
	for _, note := range view.Notes {
		say(cmd, "%s", note)
	}
	return findContainer(view, name, container)
}

// findContainer finds the pod, and the container in it that is meant.
func findContainer(view *diag.View, name, container string) (*diag.Pod, *diag.Container, error) {
	p, c, err := view.Find(name)
	if err != nil || (c != nil && (container == "" || container == c.Name)) {
		return p, c, err
	}
	c, err = p.Container(container)
	return p, c, err
}
