package hosttest

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nodeagent/internal/test/apart"
)

// Tests are those of a package: a testing.M, or what is around one.
type Tests interface{ Run() int }

// Main runs a backend's tests as root in a network namespace without an uplink: no
// packet for a service address can get out. The lock of iptables' programs is a file of
// the test's own, so that it need not wait for others on this host. mark is the variable
// that tells the test program that it is there. Not as root, tests that need it say so
// and skip.
func Main(m Tests, mark string) (code int) {
	if os.Geteuid() != 0 {
		return m.Run()
	}
	if os.Getenv(mark) == "" {
		return apart.Rerun(mark, unix.CLONE_NEWNET)
	}
	dir, err := os.MkdirTemp("", "rules-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a place for the lock of iptables:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Setenv("XTABLES_LOCKFILE", filepath.Join(dir, "xtables.lock"))
	return m.Run()
}
