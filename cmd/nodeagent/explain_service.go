package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/internal/diag"
	svcnet "nodeagent/internal/net"
	"nodeagent/internal/net/proxy"
)

// serviceDocument is the document of "explain service".
type serviceDocument struct {
	diag.TypeMeta       `json:",inline"`
	Source              string `json:"source"`
	*svcnet.Explanation `json:",inline"`
}

// fromKernel is the source where the daemon does not answer.
const fromKernel = "kernel"

func explainServiceCommand() *cobra.Command {
	var out format
	cmd := &cobra.Command{
		Use:     "service [NAMESPACE/]NAME",
		Aliases: []string{"services", "svc"},
		Short:   "Show the way to a service, and where it ends",
		Long: "Show what a connection to a service has to pass on this node, in order: the daemon knows the service, it has\n" +
			"addresses, there are endpoints, the traffic policy lets one answer here, the kernel has rules that say so, and\n" +
			"the node forwards. The first line names what blocks, and what to do. Behind it are its addresses, each with what\n" +
			"the kernel has for it: present, different or missing; and its endpoints, each with why it is left out. The\n" +
			"namespace is default unless it is named. Without the daemon, and for one that is only a proxy (proxyOnly), it is\n" +
			"what the kernel has for a service of that name.",
		Example: "  nodeagent explain service web\n  nodeagent explain service kube-system/kube-dns\n" +
			"  nodeagent explain service kube-system/kube-dns -o json | jq -r '.addresses[] | .address + \" \" + .kernel'",
	}
	outputFlag(cmd, &out, formatTable, formatJSON, formatYAML)
	completeServices(cmd)
	return verb(cmd, cobra.ExactArgs(1), func(cmd *cobra.Command, n *node, args []string) error {
		key, err := serviceKey(args[0])
		if err != nil {
			return usageError{err}
		}
		x, source := n.explainService(cmd, key)
		if out != formatTable {
			return show(cmd.OutOrStdout(), out, serviceDocument{diag.Of("ServiceExplanation"), source, x})
		}
		return serviceText(cmd.OutOrStdout(), x, time.Now())
	})
}

// serviceKey reads "namespace/name" or "name".
func serviceKey(s string) (svcnet.Key, error) {
	namespace, name, ok := strings.Cut(s, "/")
	if !ok {
		namespace, name = "default", s
	}
	if namespace == "" || name == "" || strings.Contains(name, "/") {
		return svcnet.Key{}, fmt.Errorf("%q is no service: NAMESPACE/NAME", s)
	}
	return svcnet.Key{Namespace: namespace, Name: name}, nil
}

// lookTimeout bounds the looks at the kernel: with ten thousand services each is some
// seconds.
const lookTimeout = 30 * time.Second

// explainService asks the daemon, and looks at the kernel.
func (n *node) explainService(cmd *cobra.Command, key svcnet.Key) (*svcnet.Explanation, string) {
	ctx, cancel := context.WithTimeout(cmd.Context(), lookTimeout)
	defer cancel()
	var a proxy.Answer
	if err := diag.Service(ctx, n.socket(), key.Namespace, key.Name, &a); err != nil {
		say(cmd, "%s; shown is what the kernel has", n.whyUntold(err))
		return new(svcnet.ExplainHeld(key, n.groundOf(ctx, key))), fromKernel
	}
	return new(svcnet.ExplainService(a.Facts, a.Loop, n.groundFor(ctx, a))), diag.FromDaemon
}

// whyUntold says why the daemon does not tell of services.
func (n *node) whyUntold(err error) string {
	switch {
	case n.cfg.Agent.ProxyOnly:
		return "a daemon that is only a proxy has no socket to ask"
	case !n.cfg.Services():
		return "no rules of services are asked for: there is no KubeProxyConfiguration, or its mode is none"
	}
	return err.Error()
}

// serviceText writes the sentence, the gates, the addresses and the endpoints.
func serviceText(w io.Writer, x *svcnet.Explanation, now time.Time) error {
	gates := &table{head: []string{"GATE", "STATE", "NEXT-TRY", "WHY"}}
	for i := range x.Gates {
		g := &x.Gates[i]
		why := g.Detail
		if g.LastError != "" {
			why = strings.TrimPrefix(why+"; last error: "+g.LastError, "; ")
		}
		gates.add(string(g.Gate), string(g.State), ahead(now, g.Next), orDash(why))
	}
	addresses := &table{head: []string{"ADDRESS", "PORT", "KIND", "INSIDE", "OUTSIDE", "KERNEL", "LEADS-TO"}}
	for _, a := range x.Addresses {
		addresses.add(a.Address, orDash(a.Port), orDash(a.Kind), orDash(a.Inside), orDash(a.Outside), a.Kernel, orDash(leadsTo(a)))
	}
	ends := &table{head: []string{"ENDPOINT", "SLICE", "STATE", "HERE", "CHOSEN", "WHY-NOT"}}
	for _, e := range x.Endpoints {
		ends.add(e.Address, e.Slice, e.State, yesNo(e.Here), yesNo(e.Chosen), orDash(e.Why))
	}
	if _, err := fmt.Fprintf(w, "%s\n\n", diag.Escape(x.Summary)); err != nil {
		return err
	}
	errs := []error{gates.write(w)}
	for _, t := range []*table{addresses, ends} {
		if len(t.rows) > 0 {
			_, err := io.WriteString(w, "\n")
			errs = append(errs, err, t.write(w))
		}
	}
	if h := x.Health; h != nil {
		_, err := fmt.Fprintf(w, "\nLoad balancers that ask at port %d are told of %d endpoints on this node.\n", h.Port, h.Local)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// leadsTo shows endpoints: what the kernel has where that is something else.
func leadsTo(a svcnet.AddressState) string {
	const most = 8
	list, text := a.Endpoints, ""
	if a.Held != nil && a.Kernel == "different" {
		list, text = a.Held.Endpoints, "in the kernel: "
	}
	var all []string
	for i, e := range list {
		if i == most {
			all = append(all, "and "+strconv.Itoa(len(list)-most)+" more")
			break
		}
		all = append(all, e.String())
	}
	if a.Held != nil && a.Held.Closed != "" {
		all = append(all, "closed: "+a.Held.Closed)
	}
	if len(all) == 0 {
		return ""
	}
	return text + strings.Join(all, ", ")
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}
