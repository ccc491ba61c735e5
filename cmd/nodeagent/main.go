// Command nodeagent is the node's agent: "nodeagent run" is the daemon, the
// other verbs show what the node does and why.
//
// main owns the flags, the exit codes and, in wire.go, the fitting together of
// the rooms. It holds no logic of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"nodeagent/internal/diag"
)

// version is set by the build.
var version = "dev"

func main() {
	// A namespace that is left on the thread group's leader stays for ever, so
	// nothing that changes namespaces may ever run on this thread.
	runtime.LockOSThread()
	done := make(chan int)
	go func() { done <- run() }()
	os.Exit(<-done)
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var silent exitCode
	if errors.As(err, &silent) {
		return int(silent)
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintln(os.Stderr, "nodeagent:", diag.Escape(line))
	}
	return codeOf(err)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "nodeagent",
		Short:         "Run pods on this node and explain what it does",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(runCommand(), versionCommand())
	addVerbs(root)
	return root
}
