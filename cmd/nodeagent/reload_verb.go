package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nodeagent/internal/config"
)

// reloadTimeout bounds the daemon's judgement of its configuration.
const reloadTimeout = 10 * time.Second

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
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://nodeagent/v1/reload", nil)
	if err != nil {
		return fmt.Errorf("ask the daemon to reload: %w", err)
	}
	answer, err := client.Do(req)
	if err != nil {
		return unreachableError{fmt.Errorf("ask the daemon to reload: %w", err)}
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return unreachableError{fmt.Errorf("ask the daemon to reload: %w", err)}
	}
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	var refusal struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(text, &refusal) != nil || refusal.Error == "" {
		return fmt.Errorf("ask the daemon to reload: it answers %s", answer.Status)
	}
	return configError{errors.New("the daemon keeps its old configuration: " + strings.TrimSpace(refusal.Error))}
}
