//go:build linux

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	runcC "github.com/containerd/go-runc"
	"golang.org/x/sys/unix"
)

// deleteHere removes what runc keeps of a container that has ended without a
// process: all that "runc delete" does then is to remove the container's empty
// cgroups and its state directory (opencontainers/runc delete.go and
// state_linux.go, 1.1 to 1.5), at the price of one more exec of a large program.
// It returns nil where there is more to do, or where it is not sure of that: then
// runc does it, and what was removed here is what runc would have begun with.
func deleteHere(cmd *exec.Cmd) chan runcC.Exit {
	dir := deletedState(cmd.Args)
	if dir == "" {
		return nil
	}
	state, err := readState(dir)
	if err != nil || !state.plain(filepath.Base(dir)) || state.alive() {
		return nil
	}
	for _, path := range state.Cgroups {
		// One that is still in use, or has others below it, is runc's to end.
		if err := unix.Rmdir(path); err != nil && !errors.Is(err, unix.ENOENT) {
			return nil
		}
	}
	if err := os.RemoveAll(dir); err != nil { // last: until then runc knows the container
		return nil
	}
	done := make(chan runcC.Exit, 1)
	done <- runcC.Exit{Timestamp: time.Now()}
	return done
}

// deletedState is the state directory of the container that "runc --root <root> …
// delete <id>" is to delete; "" for every other command, and with systemd, whose
// scopes runc ends over the bus.
func deletedState(args []string) string {
	n, root := len(args), slices.Index(args, "--root")
	if n < 5 || args[n-2] != "delete" || root < 0 || root+1 >= n-2 || slices.Contains(args, "--systemd-cgroup") {
		return ""
	}
	return filepath.Join(args[root+1], args[n-1])
}
