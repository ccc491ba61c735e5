// Package node proves the daemon on a private node: a real containerd, real
// namespaces and cgroups, no uplink.
package node

import (
	"context"
	"flag"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
	"nodeagent/test/image"
)

var cgroupDriver = flag.String("driver", "cgroupfs", "`cgroupDriver` of the daemons of newNode")

// newNode starts a bed with the test images and a daemon in it.
func newNode(t *testing.T, o bed.Options, a bed.AgentOptions) (context.Context, *bed.Bed, *bed.AgentProcess) {
	t.Helper()
	need.Have(t, need.Root)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	b := bed.Containerd(t, o)
	if err := b.Import(ctx); err != nil {
		t.Fatal(err)
	}
	a.Driver = *cgroupDriver
	agent := bed.Agent(t, b, a)
	warm(t, ctx, b, agent)
	return ctx, b, agent
}

// warm runs one pod through, so that what a node makes once and keeps is there.
func warm(t *testing.T, ctx context.Context, b *bed.Bed, a *bed.AgentProcess) {
	t.Helper()
	if err := a.WriteManifest("warm", manifest("warm", sleeper)); err != nil {
		t.Fatal(err)
	}
	if err := a.WaitPhase(ctx, "default/warm-node", corev1.PodRunning); err != nil {
		t.Fatal(err)
	}
	// Before it catches TERM, removing it takes the whole grace period.
	if err := b.WaitCatches(ctx, "podtool", int(unix.SIGTERM)); err != nil {
		t.Fatal(err)
	}
	if err := a.RemoveManifest("warm"); err != nil {
		t.Fatal(err)
	}
	waitGone(t, ctx, a)
}

// waitGone waits until the daemon shows no pod.
func waitGone(t *testing.T, ctx context.Context, a *bed.AgentProcess) {
	t.Helper()
	if err := a.WaitGone(ctx); err != nil {
		t.Fatal(err)
	}
}

func manifest(name, spec string) string {
	return "apiVersion: v1\nkind: Pod\nmetadata:\n  name: " + name + "\nspec:\n" + spec
}

const sleeper = `  terminationGracePeriodSeconds: 5
  containers:
  - name: app
    image: ` + image.Example + `
    command: [/podtool, sleep, forever]
`

// TestPodComesAndGoes is the whole road: a manifest appears, its container runs,
// the manifest goes, and nothing is left.
func TestPodComesAndGoes(t *testing.T) {
	ctx, b, a := newNode(t, bed.Options{}, bed.AgentOptions{})
	before, err := b.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.WriteManifest("web", manifest("web", sleeper)); err != nil {
		t.Fatal(err)
	}
	if err := a.WaitPhase(ctx, "default/web-node", corev1.PodRunning); err != nil {
		t.Fatal(err)
	}
	if err := a.RemoveManifest("web"); err != nil {
		t.Fatal(err)
	}
	if err := b.WaitSame(ctx, before); err != nil {
		t.Error(err)
	}
}
