package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/internal/diag"
)

// podList is the document of "pods".
type podList struct {
	diag.TypeMeta `json:",inline"`
	Source        string         `json:"source"`
	Items         []diag.Pod     `json:"items"`
	Problems      []diag.Problem `json:"problems"`
}

func podsCommand() *cobra.Command {
	var out format
	var namespace string
	cmd := &cobra.Command{
		Use:     "pods [NAME...]",
		Aliases: []string{"pod", "po"},
		Short:   "List pods and why they are not running",
		Long: "List the pods of this node, what they wait for, and manifests that cannot be used.\n" +
			"Without the daemon the same is worked out of the manifests, containerd's records and the kernel.",
		Example: "  nodeagent pods\n  nodeagent pods -o wide\n  nodeagent pods -n kube-system -o json | jq '.items[].status'",
	}
	outputFlag(cmd, &out, listFormats...)
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "only pods of this namespace")
	completePods(cmd)
	return verb(cmd, cobra.ArbitraryArgs, func(cmd *cobra.Command, n *node, args []string) error {
		view, err := n.look(cmd)
		if err != nil {
			return err
		}
		list := podList{TypeMeta: diag.Of("PodList"), Source: view.Source, Items: []diag.Pod{}, Problems: view.Problems}
		if list.Items, err = selectPods(view, namespace, args); err != nil {
			return err
		}
		return showPods(cmd, out, list)
	})
}

// selectPods returns the pods of a namespace, or those that are named.
func selectPods(view *diag.View, namespace string, args []string) ([]diag.Pod, error) {
	found := []diag.Pod{}
	for _, name := range args {
		p, _, err := view.Find(name)
		if err != nil {
			return nil, err
		}
		found = append(found, *p)
	}
	if len(args) > 0 {
		return found, nil
	}
	for _, p := range view.Pods {
		if namespace == "" || p.Namespace == namespace {
			found = append(found, p)
		}
	}
	return found, nil
}

func showPods(cmd *cobra.Command, out format, list podList) error {
	w := cmd.OutOrStdout()
	switch out {
	case formatJSON, formatYAML:
		return show(w, out, list)
	case formatName:
		var all []string
		for _, p := range list.Items {
			all = append(all, p.FullName())
		}
		return names(w, all)
	}
	t := podTable(list.Items, out == formatWide, time.Now())
	if err := t.write(w); err != nil {
		return err
	}
	for _, p := range list.Problems {
		where := p.File
		if p.Line > 0 {
			where += ":" + strconv.Itoa(p.Line)
		}
		say(cmd, "cannot use a manifest: %s: %s", where, p.Message)
	}
	return nil
}

func podTable(pods []diag.Pod, wide bool, now time.Time) *table {
	t := &table{head: []string{"NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE"}}
	if wide {
		t.head = append(t.head, "IP", "QOS", "UID", "MESSAGE")
	}
	for _, p := range pods {
		row := []string{p.Namespace, p.Name, fmt.Sprintf("%d/%d", p.Ready, p.Total), p.Status, strconv.Itoa(p.Restarts), ago(now, p.Created)}
		if wide {
			row = append(row, orDash(strings.Join(p.IPs, ",")), orDash(p.QOSClass), p.UID, orDash(p.Message))
		}
		t.add(row...)
	}
	return t
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
