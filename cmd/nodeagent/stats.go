package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/internal/diag"
)

// statsList is the document of "stats".
type statsList struct {
	diag.TypeMeta `json:",inline"`
	Source        string                `json:"source"`
	Interval      float64               `json:"intervalSeconds"`
	Items         []diag.ContainerUsage `json:"items"`
}

func statsCommand() *cobra.Command {
	var out format
	var interval time.Duration
	var namespace string
	cmd := &cobra.Command{
		Use:     "stats [POD...]",
		Short:   "Show what running containers use",
		Long:    "Show CPU, memory, processes and log output of running containers. CPU is measured over --interval.",
		Example: "  nodeagent stats\n  nodeagent stats web --interval 5s\n  nodeagent stats -o json",
	}
	outputFlag(cmd, &out, formatTable, formatWide, formatJSON, formatYAML)
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "how long CPU is measured; at most 1m")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "only pods of this namespace")
	completePods(cmd)
	return verb(cmd, cobra.ArbitraryArgs, func(cmd *cobra.Command, n *node, args []string) error {
		if interval <= 0 || interval > time.Minute {
			return usageError{errors.New("--interval must be more than 0 and at most 1m")}
		}
		view, err := n.look(cmd)
		if err != nil {
			return err
		}
		pods, err := selectPods(view, namespace, args)
		if err != nil {
			return err
		}
		tree, err := n.tree()
		if err != nil {
			return err
		}
		m := diag.Meter{Cgroups: tree, RunDir: n.cfg.Agent.RunDir, Now: time.Now}
		before := m.Read(cmd.Context(), pods)
		if err := pause(cmd.Context(), interval); err != nil {
			return err
		}
		list := statsList{TypeMeta: diag.Of("StatsList"), Source: view.Source, Interval: interval.Seconds(), Items: diag.Between(before, m.Read(cmd.Context(), pods))}
		if out == formatJSON || out == formatYAML {
			return show(cmd.OutOrStdout(), out, list)
		}
		return statsTable(list.Items, out == formatWide).write(cmd.OutOrStdout())
	})
}

// pause waits for the second measurement.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return exitCode(exitInterrupted)
	}
}

func statsTable(all []diag.ContainerUsage, wide bool) *table {
	t := &table{head: []string{"POD", "CONTAINER", "CPU", "MEMORY", "LIMIT", "PIDS", "LOG"}}
	if wide {
		t.head = append(t.head, "THROTTLED", "PEAK", "READ", "WRITTEN", "OOM-KILLS", "LOG-LOST")
	}
	for _, u := range all {
		memory, log, lost := "-", "-", "-"
		if u.MemoryLimit != nil {
			memory = size(*u.MemoryLimit)
		}
		if u.Log != nil {
			log, lost = size(u.Log.Bytes), size(u.Log.DroppedBytes)
		}
		row := []string{
			u.Namespace + "/" + u.Pod, u.Container, fmt.Sprintf("%.0fm", u.CPUCores*1000), size(u.Usage.MemoryWorkingSet), memory,
			strconv.FormatUint(u.Usage.Pids, 10), log,
		}
		if wide {
			row = append(row, fmt.Sprintf("%.0f%%", u.Throttled*100), size(u.Usage.MemoryPeak), size(u.Usage.ReadBytes), size(u.Usage.WriteBytes),
				strconv.FormatUint(u.OOMKills, 10), lost)
		}
		t.add(row...)
	}
	return t
}
