package machine_test

import (
	"testing"

	"nodeagent/internal/test/need"
	"nodeagent/test/machine/guest"
)

// suite is one package's tests: those of every day, chosen for what differs on
// cgroup v2 and under systemd, and all of them where there is an hour.
type suite struct {
	pkg   string
	daily []string // patterns, a run each
}

var engine = []suite{
	{"nodeagent/internal/net/podnet", []string{"^(TestTrafficOfPods|TestPodInterface|TestHostPorts|TestForwardPolicyDrop|TestTableComesBack|TestRestartKeepsPods)$"}},
	{"nodeagent/cmd/nodeagent-shim", []string{"^(TestLogAndExit|TestExitWithContainerdDead|TestMemoryCgroup|TestCgroupMount|TestOOMKills)$"}},
	{"nodeagent/internal/cri", []string{"^(TestPodStartsStopsAndLeavesNothing|TestKernelSees|TestOOMKilled|TestCrun)$"}},
	{"nodeagent/test/node", []string{
		"^(TestPodComesAndGoes|TestAppArmor|TestHugePages)$",
		"^TestContainerIsWhatWasAskedFor$/^(capabilities|namespaces|cgroups|process_limits|logs)$",
	}},
}

func (s suite) run(t *testing.T, g *guest.Guest) {
	t.Run(s.pkg, func(t *testing.T) {
		if need.Lacks(need.Full) == "" {
			g.GoTest(t, s.pkg, "-timeout", "90m")
			return
		}
		for _, pattern := range s.daily {
			g.GoTest(t, s.pkg, "-short", "-run", pattern)
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
