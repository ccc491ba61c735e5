package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/internal/diag"
	"nodeagent/internal/pod"
)

// explanationDocument is the document of "explain pod".
type explanationDocument struct {
	diag.TypeMeta    `json:",inline"`
	Source           string `json:"source"`
	*pod.Explanation `json:",inline"`
}

func explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "explain",
		Short:   "Explain what keeps a pod from being Ready or from going, and a service from answering",
		Example: "  nodeagent explain pod web\n  nodeagent explain service kube-system/kube-dns",
		Args:    usage(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(explainPodCommand(), explainServiceCommand())
	return cmd
}

func explainPodCommand() *cobra.Command {
	var out format
	cmd := &cobra.Command{
		Use:     "pod POD",
		Aliases: []string{"pods", "po"},
		Short:   "Show the gates of a pod and the one that blocks",
		Long: "Show the gates that a pod has to pass, in order: source, admission, sandbox, network, volumes, then image,\n" +
			"create, start and probes of each container, then Ready; of a pod that is to go: stop of each container,\n" +
			"network, remove, volumes, gone. Each is passed, waiting, blocked, failed or not reached; the first line names\n" +
			"the one that blocks, and what to do. POD may also be a manifest that cannot be used. Without the daemon the\n" +
			"same is worked out of the manifests, containerd's records and what the daemon left.",
		Example: "  nodeagent explain pod web\n  nodeagent explain pod kube-system/dns-node1\n" +
			"  nodeagent explain pod web -o json | jq -r .summary",
	}
	outputFlag(cmd, &out, formatTable, formatJSON, formatYAML)
	completePods(cmd)
	return verb(cmd, cobra.ExactArgs(1), func(cmd *cobra.Command, n *node, args []string) error {
		view, err := n.look(cmd)
		if err != nil {
			return err
		}
		told := len(view.Notes)
		x, err := n.eye.Explain(cmd.Context(), view, args[0])
		if err != nil {
			return err
		}
		for _, note := range view.Notes[told:] {
			say(cmd, "%s", note)
		}
		if out != formatTable {
			return show(cmd.OutOrStdout(), out, explanationDocument{diag.Of("PodExplanation"), view.Source, x})
		}
		return explainText(cmd.OutOrStdout(), x, time.Now())
	})
}

// explainText writes the sentence and the gates, and the same of the pod before.
func explainText(w io.Writer, x *pod.Explanation, now time.Time) error {
	if _, err := fmt.Fprintf(w, "%s\n\n", diag.Escape(x.Summary)); err != nil {
		return err
	}
	if err := gateTable(x.Gates, now).write(w); err != nil {
		return err
	}
	if x.Earlier == nil {
		return nil
	}
	if _, err := fmt.Fprintf(w, "\nThe earlier pod (uid %s): ", diag.Escape(string(x.Earlier.UID))); err != nil {
		return err
	}
	return explainText(w, x.Earlier, now)
}

func gateTable(gates []pod.Gate, now time.Time) *table {
	t := &table{head: []string{"GATE", "CONTAINER", "STATE", "SINCE", "NEXT-TRY", "WHY"}}
	for i := range gates {
		g := &gates[i]
		t.add(string(g.Gate), orDash(g.Container), string(g.State), ago(now, g.Since), ahead(now, g.Next), orDash(gateWhy(g)))
	}
	return t
}

// gateWhy is all that a gate has to say: what it waits for and its last error, in full.
func gateWhy(g *pod.Gate) string {
	var all []string
	text := g.LastError
	if g.Reason != "" && g.State != pod.GatePassed && !strings.HasPrefix(text, g.Reason) {
		text = strings.TrimSuffix(g.Reason+": "+text, ": ")
	}
	if g.State == pod.GatePassed && text != "" {
		text = "before: " + text
	}
	if g.Failures > 1 {
		text += " (" + strconv.Itoa(g.Failures) + " times)"
	}
	for _, s := range []string{text, g.Detail} {
		if s != "" {
			all = append(all, s)
		}
	}
	return strings.Join(all, "; ")
}

// ahead shows how long it is until then.
func ahead(now time.Time, t *time.Time) string {
	switch {
	case t == nil:
		return "-"
	case !t.After(now):
		return "now"
	}
	return span(t.Sub(now) + time.Second)
}
