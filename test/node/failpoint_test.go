package node

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/failpoint"
	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// victim has what makes a pod's road long: an init container, two containers, hooks, a
// host port, a termination message, volumes.
const victim = `  terminationGracePeriodSeconds: 5
  volumes:
  - {name: disk, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory}}
  - {name: self, downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}
  initContainers:
  - name: init
    image: ` + image.Example + `
    command: [/podtool, print, "3"]
  containers:
  - name: app
    image: ` + image.Example + `
    command: [/podtool, serve, ":80"]
    lifecycle: {postStart: {exec: {command: [/podtool, exit, "0"]}}, preStop: {exec: {command: [/podtool, exit, "0"]}}}
    ports: [{containerPort: 80, hostPort: 8080}]
    volumeMounts: [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}, {name: self, mountPath: /self}, {name: disk, mountPath: /sub, subPath: a/b}]
  - name: side
    image: ` + image.Example + `
    command: [/podtool, sleep, forever]
`

// elsewhere are fail-points that a pod on the bridge does not pass, and where
// they are proved instead.
var elsewhere = map[string]string{
	"podnet/cni-":  "internal/net/podnet, with a plugin",
	"volume/local": "internal/volume: a static pod has no claims",
	"durable/":     "internal/durable and internal/net/podnet: CNI's journal and verdicts of probes are written so",
}

// TestKillAtEveryFailpoint kills the daemon at each named place of a pod's start
// and stop. The next daemon must bring the pod to where it should be, touch no
// other pod and leave nothing behind.
func TestKillAtEveryFailpoint(t *testing.T) {
	ctx, b, a := newNode(t, bed.Options{Variant: bed.Variant{Failpoints: true}}, bed.AgentOptions{})
	if err := a.WriteManifest("bystander", manifest("bystander", sleeper)); err != nil {
		t.Fatal(err)
	}
	if err := a.WaitPhase(ctx, "default/bystander-node", corev1.PodRunning); err != nil {
		t.Fatal(err)
	}
	if err := b.WaitCatches(ctx, "podtool", int(unix.SIGTERM)); err != nil { // until then it is runc's
		t.Fatal(err)
	}
	k := &killer{t: t, b: b, a: a}
	var err error
	if k.before, err = b.Snapshot(ctx); err != nil {
		t.Fatal(err)
	}
	if k.bystander, err = b.Running(ctx); err != nil {
		t.Fatal(err)
	}
	unvisited := []string{}
	for _, name := range failpoint.All() {
		if place, ok := provedElsewhere(string(name)); ok {
			t.Logf("%s is proved in %s", name, place)
			continue
		}
		if !k.kill(string(name)) && !t.Failed() {
			unvisited = append(unvisited, string(name))
		}
		if t.Failed() {
			t.Fatalf("after a kill at %s", name)
		}
	}
	if len(unvisited) > 0 {
		t.Errorf("no pod passed these fail-points: %s", strings.Join(unvisited, ", "))
	}
}

func provedElsewhere(name string) (string, bool) {
	for prefix, place := range elsewhere {
		if strings.HasPrefix(name, prefix) {
			return place, true
		}
	}
	return "", false
}

type killer struct {
	t         *testing.T
	b         *bed.Bed
	a         *bed.AgentProcess
	before    bed.Snapshot
	bystander map[string]string
}

// kill runs the pod through a daemon that dies at the place, and through the
// next one; it tells whether the daemon did die.
func (k *killer) kill(name string) (died bool) {
	ctx, cancel := context.WithTimeout(k.t.Context(), 60*time.Second)
	defer cancel()
	defer func() {
		if k.t.Failed() {
			k.t.Logf("fail-point %s", name)
		}
	}()
	if err := k.a.Restart(ctx, "NODEAGENT_FAILPOINTS="+name+"=kill"); err != nil {
		k.t.Error(err)
		return false
	}
	spec := victim
	if strings.Contains(name, "/stop-kill:") { // passed only when TERM is ignored
		spec = strings.ReplaceAll(victim, "sleep, forever", "deaf")
	}
	if err := k.a.WriteManifest("victim", manifest("victim", spec)); err != nil {
		k.t.Error(err)
		return false
	}
	running := func(pods map[string]*corev1.Pod) bool {
		p := pods["default/victim-node"]
		return p != nil && bed.Ready(p)
	}
	if k.orDies(ctx, running) {
		died = true
		k.restart(ctx)
		k.must(k.a.WaitPods(ctx, running))
	}
	if spec == victim {
		k.must(k.b.WaitCatches(ctx, "podtool", int(unix.SIGTERM)))
	} else {
		k.must(k.saysDeaf(ctx)) // a program's first moments are not deaf yet
	}
	k.must(k.a.RemoveManifest("victim"))
	// A watch begins pod by pod, so only the list tells who is not there.
	gone := func(map[string]*corev1.Pod) bool {
		pods, err := k.a.Pods(ctx)
		return err == nil && len(pods) == 1
	}
	if !died && k.orDies(ctx, gone) {
		died = true
		k.restart(ctx)
	}
	k.must(k.b.WaitSame(ctx, k.before))
	now, err := k.b.Running(ctx)
	k.must(err)
	if !maps.Equal(now, k.bystander) {
		k.t.Errorf("the other pod's containers are %v, were %v", now, k.bystander)
	}
	return died
}

// saysDeaf waits for the line that the deaf container prints once it is.
func (k *killer) saysDeaf(ctx context.Context) error {
	for {
		logs, err := filepath.Glob(filepath.Join(k.a.PodLogs(), "default_victim-node_*", "side", "0.log"))
		if err != nil {
			return err
		}
		for _, l := range logs {
			if text, err := os.ReadFile(l); err == nil && strings.HasSuffix(string(text), " F deaf\n") {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until the container is deaf: %w", ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

func (k *killer) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Error(err)
	}
}

func (k *killer) restart(ctx context.Context) { k.must(k.a.Restart(ctx)) }

// orDies waits until ok holds of the pods, or the daemon is dead.
func (k *killer) orDies(ctx context.Context, ok func(map[string]*corev1.Pod) bool) (died bool) {
	watch, cancel := context.WithCancel(ctx)
	defer cancel()
	exited := k.a.Exited()
	go func() {
		select {
		case <-exited:
			cancel()
		case <-watch.Done():
		}
	}()
	err := k.a.WaitPods(watch, ok)
	select {
	case <-exited:
		return true
	default:
		k.must(err)
		return false
	}
}

// TestFailpointsAreNamed holds the number of places that the daemon is killed at.
func TestFailpointsAreNamed(t *testing.T) {
	all := failpoint.All()
	if len(all) < 40 {
		t.Errorf("%d fail-points are named, want at least 40", len(all))
	}
	names := map[string]bool{}
	for _, n := range all {
		names[string(n)] = true
	}
	if len(names) != len(all) {
		t.Error("a fail-point is named twice")
	}
	text, err := os.ReadFile("../../internal/failpoint/names.go")
	if err != nil {
		t.Fatal(err)
	}
	declared := 0
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); slices.Contains(fields, "Name") && slices.Contains(fields, "=") {
			declared++
		}
	}
	if declared != len(all) {
		t.Errorf("%d fail-points are declared and %d listed", declared, len(all))
	}
}
