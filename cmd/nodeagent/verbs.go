package main

import "github.com/spf13/cobra"

// addVerbs adds the verbs that show the node.
func addVerbs(root *cobra.Command) {}
