package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"nodeagent/internal/server"
	"nodeagent/internal/worker"
)

func restartCommand() *cobra.Command {
	var container string
	cmd := &cobra.Command{
		Use:   "restart POD [-c CONTAINER]",
		Short: "Restart the containers of a pod in place",
		Long: "Restart the containers of a pod, or one of them, in place: the pod keeps its address and its volumes.\n" +
			"Each is stopped with its preStop hook and the pod's grace period and started again, whatever its\n" +
			"restart policy says; one that waits for its back-off starts at once. Init containers do not run again.\n" +
			"The command returns when the restart is under way. The daemon is needed.",
		Example: "  nodeagent restart web\n  nodeagent restart kube-system/web -c app",
	}
	cmd.Flags().StringVarP(&container, "container", "c", "", "container of the pod; all of them without it")
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
		if c != nil && container == "" {
			container = c.Name
		}
		return askRestart(cmd.Context(), n.socket(), p.Namespace, p.Name, container)
	})
}

// askRestart asks the daemon, who alone may stop and start containers.
func askRestart(ctx context.Context, socket, namespace, name, container string) error {
	q := url.Values{"namespace": {namespace}, "name": {name}}
	if container != "" {
		q.Set("container", container)
	}
	status, refusal, err := post(ctx, socket, "/v1/restart?"+q.Encode(), "ask the daemon for a restart")
	switch {
	case err != nil || status == http.StatusOK:
		return err
	case status == http.StatusNotFound:
		return notFoundError{errors.New(refusal)}
	}
	return fmt.Errorf("restart is refused: %s", refusal)
}

// restart fits the pod set's answer to the socket's.
func (d *daemon) restart(namespace, name, container string) error {
	err := d.set.Restart(namespace, name, container)
	switch {
	case errors.Is(err, worker.ErrUnknown):
		return refusal{err, server.ErrNotFound}
	case errors.Is(err, worker.ErrEnded):
		return refusal{err, server.ErrEnded}
	}
	return err
}

// refusal is an error in the words of one room and of the kind of another.
type refusal struct {
	error
	kind error
}

func (r refusal) Unwrap() []error { return []error{r.error, r.kind} }
