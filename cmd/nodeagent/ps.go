package main

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/internal/diag"
)

// containerList is the document of "ps".
type containerList struct {
	diag.TypeMeta `json:",inline"`
	Source        string            `json:"source"`
	Items         []containerOfAPod `json:"items"`
}

// containerOfAPod is a container with the pod that it belongs to.
type containerOfAPod struct {
	diag.Container
	PodNamespace string `json:"podNamespace"`
	PodName      string `json:"podName"`
	PodUID       string `json:"podUID"`
}

func psCommand() *cobra.Command {
	var out format
	var all bool
	var namespace string
	cmd := &cobra.Command{
		Use:     "ps [POD...]",
		Aliases: []string{"containers"},
		Short:   "List containers",
		Long:    "List the running containers of this node, with -a also those that have ended or wait.",
		Example: "  nodeagent ps\n  nodeagent ps -a web\n  nodeagent ps -o json",
	}
	outputFlag(cmd, &out, listFormats...)
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also containers that have ended, or have not started")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "only pods of this namespace")
	completePods(cmd)
	return verb(cmd, cobra.ArbitraryArgs, func(cmd *cobra.Command, n *node, args []string) error {
		view, err := n.look(cmd)
		if err != nil {
			return err
		}
		pods, err := selectPods(view, namespace, args)
		if err != nil {
			return err
		}
		list := containerList{TypeMeta: diag.Of("ContainerList"), Source: view.Source, Items: []containerOfAPod{}}
		for _, p := range pods {
			for _, c := range p.Containers {
				if all || c.Running() {
					list.Items = append(list.Items, containerOfAPod{c, p.Namespace, p.Name, p.UID})
				}
			}
		}
		return showContainers(cmd, out, list)
	})
}

func showContainers(cmd *cobra.Command, out format, list containerList) error {
	w := cmd.OutOrStdout()
	switch out {
	case formatJSON, formatYAML:
		return show(w, out, list)
	case formatName:
		var all []string
		for _, c := range list.Items {
			all = append(all, c.PodNamespace+"/"+c.PodName+"/"+c.Name)
		}
		return names(w, all)
	}
	return containerTable(list.Items, out == formatWide, time.Now()).write(w)
}

func containerTable(all []containerOfAPod, wide bool, now time.Time) *table {
	t := &table{head: []string{"CONTAINER", "NAMESPACE", "POD", "NAME", "STATE", "ATTEMPT", "AGE", "IMAGE"}}
	if wide {
		t.head = append(t.head, "PID", "SANDBOX", "IMAGE-ID", "WAITS-FOR")
	}
	for i := range all {
		c := &all[i]
		since := c.Started
		if since == nil {
			since = c.Created
		}
		row := []string{orDash(short(c.ID)), c.PodNamespace, c.PodName, c.Name, containerState(&c.Container), strconv.Itoa(int(c.Attempt)), ago(now, since), c.Image}
		if wide {
			pid := "-"
			if c.Pid > 0 {
				pid = strconv.Itoa(int(c.Pid))
			}
			row = append(row, pid, orDash(short(c.SandboxID)), orDash(c.ImageID), orDash(waitsFor(&c.Container)))
		}
		t.add(row...)
	}
	return t
}

// waitsFor says what keeps a container from running.
func waitsFor(c *diag.Container) string {
	if c.Wait == "" && c.State == "Waiting" {
		return c.Message
	}
	return c.Wait
}
