package machine_test

import (
	"testing"

	"nodeagent/internal/test/need"
	"nodeagent/test/machine/guest"
)

// suite is one package's tests: those of every day, chosen for what differs on
// cgroup v2 and under systemd, and all of them where there is an hour.
type suite struct{ pkg, daily string }

var engine = []suite{
	{"nodeagent/internal/net/podnet", "^(TestTrafficOfPods|TestPodInterface|TestHostPorts|TestForwardPolicyDrop|TestTableComesBack|TestRestartKeepsPods)$"},
	{"nodeagent/cmd/nodeagent-shim", "^(TestLogAndExit|TestExitWithContainerdDead|TestMemoryCgroup|TestCgroupMount|TestOOMKills)$"},
	{"nodeagent/internal/cri", "^(TestPodStartsStopsAndLeavesNothing|TestKernelSees|TestHostNamespaces|TestOOMKilled|TestReboot|TestCrun)$"},
	{"nodeagent/test/node", "^(TestPodComesAndGoes|TestContainerIsWhatWasAskedFor|TestAppArmor|TestHugePages)$"},
}

func (s suite) run(t *testing.T, g *guest.Guest) {
	t.Run(s.pkg, func(t *testing.T) {
		if need.Lacks(need.Full) == "" {
			g.GoTest(t, s.pkg, "-timeout", "90m")
		} else {
			g.GoTest(t, s.pkg, "-short", "-run", s.daily)
		}
	})
}

// TestEngine runs the engine's tests on cgroup v2 under systemd, one guest for
// all of them.
func TestEngine(t *testing.T) {
	t.Parallel()
	g := guest.Start(t, guest.Options{})
	for _, s := range engine {
		s.run(t, g)
	}
}

// TestEngineV1 runs those that stand on cgroups once more on v1 under systemd,
// where everything was asked for.
func TestEngineV1(t *testing.T) {
	need.Have(t, need.Full)
	t.Parallel()
	g := guest.Start(t, guest.Options{Cmdline: []string{v1}})
	for _, s := range engine[1:] {
		s.run(t, g)
	}
}
