package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"nodeagent/internal/failpoint"
)

func versionCommand() *cobra.Command {
	var failpoints bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Show the version",
		Example: "  nodeagent version",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			if failpoints {
				for _, name := range failpoint.All() {
					fmt.Fprintln(out, name)
				}
				return nil
			}
			_, err := fmt.Fprintf(out, "nodeagent %s %s/%s %s\n", version, runtime.GOOS, runtime.GOARCH, runtime.Version())
			return err
		},
	}
	cmd.Flags().BoolVar(&failpoints, "failpoints", false, "list the places at which a test build can be made to fail")
	return cmd
}
