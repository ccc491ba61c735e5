package ipvs

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"nodeagent/internal/test/apart"
)

// insideEnv marks the test process that runs in a network namespace of its own.
const insideEnv = "NODEAGENT_IPVS_INSIDE"

// The main thread stays with the main goroutine: one that changed its namespace
// could not be destroyed.
func init() { runtime.LockOSThread() }

// TestMain runs the tests as root in a network namespace without an uplink: no
// packet for a service address can get out. The lock of the programs is a file
// of the test's own. Not as root, those that need it say so and skip.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	if os.Getenv(insideEnv) == "" {
		os.Exit(apart.Rerun(insideEnv, unix.CLONE_NEWNET))
	}
	dir, err := os.MkdirTemp("", "ipvs-test")
	if err != nil {
		panic(err)
	}
	os.Setenv("XTABLES_LOCKFILE", dir+"/xtables.lock")
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}
