package main

import (
	"fmt"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"nodeagent/internal/config"
	"nodeagent/internal/diag"
	"nodeagent/internal/failpoint"
)

// versionDocument is the document of "version".
type versionDocument struct {
	diag.TypeMeta `json:",inline"`
	Version       string `json:"version"`
	Platform      string `json:"platform"`
	GoVersion     string `json:"goVersion"`
	Daemon        string `json:"daemon,omitempty"` // of the daemon that answers
}

func versionCommand() *cobra.Command {
	var failpoints bool
	var out format
	var flags config.Flags
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Show the version",
		Long:    "Show the version of this program, and of the daemon if one answers.",
		Example: "  nodeagent version\n  nodeagent version -o json",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := cmd.OutOrStdout()
			if failpoints {
				for _, name := range failpoint.All() {
					fmt.Fprintln(w, name)
				}
				return nil
			}
			doc := versionDocument{diag.Of("Version"), version, runtime.GOOS + "/" + runtime.GOARCH, runtime.Version(), ""}
			if cfg, err := config.Load(flags); err == nil {
				doc.Daemon, _ = diag.DaemonVersion(cmd.Context(), filepath.Join(cfg.Agent.RunDir, "nodeagent.sock"))
			}
			if out != formatTable {
				return show(w, out, doc)
			}
			text := fmt.Sprintf("nodeagent %s %s %s\n", doc.Version, doc.Platform, doc.GoVersion)
			if doc.Daemon != "" {
				text += fmt.Sprintf("daemon    %s\n", diag.Escape(doc.Daemon))
			}
			_, err := fmt.Fprint(w, text)
			return err
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	configFlags(cmd, &flags)
	outputFlag(cmd, &out, formatTable, formatJSON, formatYAML)
	cmd.Flags().BoolVar(&failpoints, "failpoints", false, "list the places at which a test build can be made to fail")
	return cmd
}
