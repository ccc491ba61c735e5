package podnet

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"nodeagent/internal/test/apart"
)

// insideEnv marks the test process that runs in namespaces of its own.
const insideEnv = "PODNET_TEST_INSIDE"

// The main thread stays with the main goroutine: one that changed its namespace
// could not be destroyed, and /proc/self would be about that namespace.
func init() { runtime.LockOSThread() }

// TestMain runs the tests as root in a network namespace without an uplink and
// in a mount namespace of their own: no packet for a pod address and no mount
// can get out. Not as root, the tests that need it say so and skip.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	if os.Getenv(insideEnv) == "" {
		os.Exit(apart.Rerun(insideEnv, unix.CLONE_NEWNET|unix.CLONE_NEWNS))
	}
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "prepare namespaces:", err)
		os.Exit(1)
	}
	if script := os.Getenv(crashScript); script != "" {
		os.Exit(crashHelper(script))
	}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func prepare() error {
	if os.Getenv(crashScript) != "" {
		return nil // the parent has
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	// The CNI library keeps its results here and cannot be told otherwise.
	if err := os.MkdirAll("/var/lib", 0o755); err != nil {
		return err
	}
	return unix.Mount("none", "/var/lib", "tmpfs", 0, "")
}
