package measure

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Main is the rest of a bench's main function: it runs it until it is done or told to
// stop, and exits with 1 where it failed or a row is over its limit.
func Main(name string, run func(context.Context) (over bool, err error)) {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	over, err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
	}
	if err != nil || over {
		os.Exit(1)
	}
}
