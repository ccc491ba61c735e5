package main

import "github.com/spf13/cobra"

func inspectCommand() *cobra.Command {
	return &cobra.Command{Use: "inspect", Run: func(*cobra.Command, []string) {}}
}
func statsCommand() *cobra.Command {
	return &cobra.Command{Use: "stats", Run: func(*cobra.Command, []string) {}}
}
