package conntrack

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"nodeagent/internal/test/apart"
)

// insideEnv marks the test process that runs in a network namespace of its own.
const insideEnv = "NODEAGENT_CONNTRACK_INSIDE"

func init() { runtime.LockOSThread() }

// TestMain runs the tests as root in a network namespace without an uplink, whose
// connections are its own.
func TestMain(m *testing.M) {
	if os.Geteuid() == 0 && os.Getenv(insideEnv) == "" {
		os.Exit(apart.Rerun(insideEnv, unix.CLONE_NEWNET))
	}
	os.Exit(m.Run())
}
