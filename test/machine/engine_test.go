package machine_test

import (
	"slices"
	"testing"

	"nodeagent/internal/test/need"
	"nodeagent/test/machine/guest"
)

// suite is one package's tests: those of every day, chosen for what differs on
// cgroup v2 and under systemd, and all of them where there is an hour.
type suite struct {
	pkg   string
	daily [][]string // flags of go test, a run each
}

var engine = []suite{
	{"nodeagent/internal/net/podnet", [][]string{{"-run", "^(TestTrafficOfPods|TestPodInterface|TestHostPorts|TestForwardPolicyDrop|TestTableComesBack|TestRestartKeepsPods)$"}}},
	{"nodeagent/cmd/nodeagent-shim", [][]string{{"-run", "^(TestLogAndExit|TestExitWithContainerdDead|TestMemoryCgroup|TestCgroupMount|TestOOMKills)$"}}},
	{"nodeagent/internal/cri", [][]string{{"-run", "^(TestPodStartsStopsAndLeavesNothing|TestKernelSees|TestCrun)$"}}},
	{"nodeagent/test/node", [][]string{
		{slicesDriver, "-run", "^(TestPodComesAndGoes|TestHugePages|TestContainerIsWhatWasAskedFor)$/^(capabilities|namespaces|cgroups|process_limits|logs|slices|whole_container_out_of_memory)$"},
		{"-run", "^TestAppArmor$"},
	}},
	{"nodeagent/internal/journal", [][]string{{"-run", "^TestRealJournal$"}}},
}

// slicesDriver has the daemons make cgroups as users' daemons do on such a machine;
// nobody else names a driver, and gets cgroupfs.
const slicesDriver = "-driver=systemd"

// choice runs the tests of every day for which ok holds.
func (s suite) choice(t *testing.T, g *guest.Guest, ok func(flags []string) bool) {
	for _, flags := range s.daily {
		if ok(flags) {
			t.Run(s.pkg, func(t *testing.T) { g.GoTest(t, s.pkg, append([]string{"-short"}, flags...)...) })
		}
	}
}

func (s suite) whole(t *testing.T, g *guest.Guest) {
	t.Run(s.pkg, func(t *testing.T) { g.GoTest(t, s.pkg, "-timeout", "90m") })
}

// TestEngine runs the engine's tests on cgroup v2 under systemd, one guest for
// all of them. Where everything was asked for, the whole has not what the choice
// has with another driver.
func TestEngine(t *testing.T) {
	t.Parallel()
	wanted := func([]string) bool { return true }
	g := guest.Start(t, guest.Options{})
	if need.Lacks(need.Full) == "" {
		for _, s := range engine {
			s.whole(t, g)
		}
		wanted = func(flags []string) bool { return slices.Contains(flags, slicesDriver) }
	}
	for _, s := range engine {
		s.choice(t, g, wanted)
	}
}

// TestEngineV1 runs those that stand on cgroups once more on v1 under systemd,
// where everything was asked for.
func TestEngineV1(t *testing.T) {
	need.Have(t, need.Full)
	t.Parallel()
	g := guest.Start(t, guest.Options{Cmdline: []string{v1}})
	for _, s := range engine[1:] {
		s.whole(t, g)
	}
}
