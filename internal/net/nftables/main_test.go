package nftables

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// insideEnv marks the test process that runs in a network namespace of its own.
const insideEnv = "NODEAGENT_NFTABLES_INSIDE"

// The main thread stays with the main goroutine: one that changed its namespace
// could not be destroyed.
func init() { runtime.LockOSThread() }

// TestMain runs the tests as root in a network namespace without an uplink: no
// packet for a service address can get out. Not as root, those that need it say
// so and skip.
func TestMain(m *testing.M) {
	if os.Geteuid() == 0 && os.Getenv(insideEnv) == "" {
		os.Exit(reexec())
	}
	os.Exit(m.Run())
}

func reexec() int {
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Env = append(os.Environ(), insideEnv+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	err := c.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "start tests in a namespace:", err)
		return 1
	}
	return 0
}
