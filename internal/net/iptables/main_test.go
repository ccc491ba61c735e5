package iptables

import (
	"os"
	"runtime"
	"testing"

	"nodeagent/internal/net/hosttest"
)

// The main thread stays with the main goroutine: one that changed its namespace
// could not be destroyed.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) { os.Exit(hosttest.Main(m, "NODEAGENT_IPTABLES_INSIDE")) }
