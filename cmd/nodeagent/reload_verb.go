package main

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"nodeagent/internal/config"
)

func reloadCommand() *cobra.Command {
	var flags config.Flags
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have the daemon read its configuration and manifests again",
		Long: "Have the daemon read its configuration and all manifests again. A configuration that cannot be used\n" +
			"is refused with the reason (exit code 78), and the old one stays in force. No pod is touched.\n" +
			"Fields that say where the node's state is (runDir, cgroupRoot and their like) cannot change.",
		Example: "  nodeagent reload --config /etc/nodeagent/config.yaml\n  systemctl reload nodeagent",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(flags)
			if err != nil {
				return configError{err}
			}
			return askReload(cmd.Context(), filepath.Join(cfg.Agent.RunDir, "nodeagent.sock"))
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	configFlags(cmd, &flags)
	return cmd
}

func askReload(ctx context.Context, socket string) error {
	status, refusal, err := post(ctx, socket, "/v1/reload", "ask the daemon to reload")
	if err != nil || status == http.StatusOK {
		return err
	}
	return configError{errors.New("the daemon keeps its old configuration: " + strings.TrimSpace(refusal))}
}
