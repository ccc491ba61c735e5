// Package apart owns how a test program gets kernel namespaces of its own, so that
// no packet, interface or mount of a test is seen by, or left on, the host. It
// decides nothing about what is in them. It is called from TestMain, before any
// goroutine of a test.
package apart

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Rerun runs the test program once more in new namespaces, which flags name
// (CLONE_NEW…), with mark set in its environment to tell it where it is, and returns
// the code to exit with. The child dies with its parent.
func Rerun(mark string, flags uintptr) int {
	runtime.LockOSThread() // the child's parent is a thread, not the process
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Env = append(os.Environ(), mark+"=1")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: unix.SIGKILL}
	err := c.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1) // -1 is a signal
	case err != nil:
		fmt.Fprintln(os.Stderr, "start tests in namespaces of their own:", err)
		return 1
	}
	return 0
}
