package main

import (
	"errors"
	"fmt"
	"io"
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
	Volumes       []diag.VolumeUsage    `json:"volumes"`
	Missed        []string              `json:"missed"` // what could not be read
}

func statsCommand() *cobra.Command {
	var out format
	var interval time.Duration
	var namespace string
	cmd := &cobra.Command{
		Use:   "stats [POD...]",
		Short: "Show what running containers and the volumes of pods use",
		Long: "Show CPU, memory, processes and log output of running containers, and what the volumes of pods take.\n" +
			"CPU is measured over --interval; volumes are counted by the daemon, at most once in volumeStatsAggPeriod.\n" +
			"Of a hostPath volume nothing is shown: what it shows is not the pod's.",
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
		m := diag.Meter{Cgroups: tree, RunDir: n.cfg.Agent.RunDir, RootDir: n.cfg.RootDir, Now: time.Now}
		if view.Source == diag.FromDaemon {
			m.Socket = n.socket()
		}
		before := m.Read(cmd.Context(), pods)
		if !linger(cmd.Context(), interval) { // for the second measurement
			return exitCode(exitInterrupted)
		}
		list := statsList{TypeMeta: diag.Of("StatsList"), Source: view.Source, Interval: interval.Seconds(), Items: diag.Between(before, m.Read(cmd.Context(), pods))}
		list.Volumes, list.Missed = m.Volumes(cmd.Context(), pods)
		if out == formatJSON || out == formatYAML {
			return show(cmd.OutOrStdout(), out, list)
		}
		for _, missed := range list.Missed {
			say(cmd, "not read: %s", missed)
		}
		return statsText(cmd.OutOrStdout(), &list, out == formatWide, time.Now())
	})
}

// statsText writes the tables for people.
func statsText(w io.Writer, list *statsList, wide bool, now time.Time) error {
	if err := statsTable(list.Items, wide).write(w); err != nil || len(list.Volumes) == 0 {
		return err
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		return err
	}
	return volumeTable(list.Volumes, wide, now).write(w)
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

func volumeTable(all []diag.VolumeUsage, wide bool, now time.Time) *table {
	t := &table{head: []string{"POD", "VOLUME", "KIND", "USED", "FILES", "CAPACITY", "COUNTED"}}
	if wide {
		t.head = append(t.head, "PATH")
	}
	for i := range all {
		v := &all[i]
		used, capacity := size(v.Bytes), "-"
		if v.Partial {
			used = "over " + used
		}
		if v.Capacity > 0 {
			capacity = size(v.Capacity)
		}
		row := []string{v.Namespace + "/" + v.Pod, v.Name, v.Kind, used, strconv.FormatUint(v.Inodes, 10), capacity, ago(now, &v.At) + " ago"}
		if wide {
			row = append(row, v.Path)
		}
		t.add(row...)
	}
	return t
}
