// Command reaper removes a bed when the process that owns it has died: it holds
// the read end of a pipe whose write end only the owner has. It talks to nobody
// and runs alone, in a session of its own.
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"nodeagent/test/bed"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: reaper BED <pipe-of-the-owner")
		os.Exit(2)
	}
	// Ctrl-C is for the owner; the pipe tells us.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	said, _ := io.ReadAll(os.Stdin)
	if string(said) == "closed" {
		return
	}
	if err := bed.Sweep(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
