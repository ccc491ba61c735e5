package nftables

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"nodeagent/internal/test/apart"
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
		os.Exit(apart.Rerun(insideEnv, unix.CLONE_NEWNET))
	}
	os.Exit(m.Run())
}
