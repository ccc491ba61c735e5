package proxy

import (
	"os"
	"runtime"
	"testing"

	"go.uber.org/goleak"

	"nodeagent/internal/net/hosttest"
)

// The main thread stays with the main goroutine: one that changed its namespace could
// not be destroyed.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) { os.Exit(hosttest.Main(noLeaks{m}, "NODEAGENT_PROXY_INSIDE")) }

// noLeaks runs tests and looks for goroutines that outlive them.
type noLeaks struct{ m *testing.M }

func (n noLeaks) Run() int {
	code := n.m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		os.Stderr.WriteString("goroutines were left: " + err.Error() + "\n")
		return 1
	}
	return code
}
