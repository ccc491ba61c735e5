//go:build failpoints

package cri_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/leases"

	"nodeagent/internal/cri/critest"
	"nodeagent/internal/failpoint"
	"nodeagent/test/bed"
)

// The child is told by these what to do; without them it is no test.
const childDir, childRoot = "CRI_TEST_DIR", "CRI_TEST_CGROUP"

// TestFailpoints walks a pod through its whole life in a child process, once
// for each fail-point of this room and for each of two ways to fail there: an
// error once, and SIGKILL. After an error the life goes on by trying again;
// after a kill another process adopts what is left. Nothing may stay behind.
func TestFailpoints(t *testing.T) {
	n := newNode(t, bed.Options{})
	n.stop()
	before, err := n.bed.Snapshot(t.Context())
	check(t, err)
	visited := filepath.Join(t.TempDir(), "visited")
	for _, name := range failpoint.All() {
		if !strings.HasPrefix(string(name), "cri/") {
			continue
		}
		for _, action := range []string{"1*error(told to)", "kill"} {
			t.Run(string(name)+" "+action, func(t *testing.T) {
				n.t = t
				defer func() { n.t = n.bedT }()
				out, err := n.child(string(name)+"="+action, visited)
				var exit *exec.ExitError
				switch {
				case action == "kill" && (!errors.As(err, &exit) || exit.ExitCode() != -1):
					t.Fatalf("the child was not killed: %v\n%s", err, out)
				case action != "kill" && err != nil:
					t.Fatalf("%v\n%s", err, out)
				}
				n.start()
				for _, uid := range n.Pods() {
					n.removePod(uid, time.Second)
				}
				n.nothingLeft(before)
				n.stop()
			})
		}
	}
	seen, err := os.ReadFile(visited)
	check(t, err)
	for _, name := range failpoint.All() {
		if strings.HasPrefix(string(name), "cri/") && !strings.Contains(string(seen), string(name)+"\n") {
			t.Errorf("%s was never visited", name)
		}
	}
}

// TestFailpointCollector has containerd collect without a pause while a start
// stands still before each of its two writes: what it has made by then must be
// referred to already.
func TestFailpointCollector(t *testing.T) {
	n := newNode(t, bed.Options{})
	n.stop()
	collecting, stop := context.WithCancel(t.Context())
	var collector sync.WaitGroup
	collector.Go(func() { n.collect(collecting) })
	for _, point := range []failpoint.Name{failpoint.CRIContainerRecordBefore, failpoint.CRISnapshotPrepareBefore} {
		out, err := n.child(string(point)+"=delay(300ms)", "")
		if err != nil || strings.Contains(out, "run a whole pod: ") {
			t.Errorf("%s: %v\n%s", point, err, out)
		}
	}
	stop()
	collector.Wait()
}

// collect makes containerd collect until ctx ends: a lease given back
// synchronously returns after a collection.
func (n *node) collect(ctx context.Context) {
	client, err := n.bed.Dial()
	if err != nil {
		n.t.Error(err)
		return
	}
	defer client.Close()
	store, bounded := client.LeasesService(), context.WithoutCancel(ctx)
	for ctx.Err() == nil {
		l, err := store.Create(bounded, leases.WithRandomID(), leases.WithExpiration(time.Hour))
		if err == nil {
			err = store.Delete(bounded, l, leases.SynchronousDelete)
		}
		if err != nil {
			n.t.Error(err)
			return
		}
	}
}

func (n *node) child(failpoints, visited string) (string, error) {
	ctx, cancel := context.WithTimeout(n.t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestFailpointsChild$", "-test.v")
	cmd.Env = append(os.Environ(), childDir+"="+n.bed.Dir(), childRoot+"="+n.bed.CgroupRoot(),
		"NODEAGENT_FAILPOINTS="+failpoints, "NODEAGENT_FAILPOINTS_VISITED="+visited)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestFailpointsChild is the child of TestFailpoints.
func TestFailpointsChild(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		return
	}
	n := &node{
		t: t, net: critest.New(netip.MustParseAddr("10.88.0.2")), woken: make(chan struct{}), cgroups: os.Getenv(childRoot), dir: dir,
	}
	n.configure(filepath.Join(dir, "k", "c.sock"))
	n.start()
	defer n.stop()
	again(t, "run a whole pod", func() error { return n.life() })
}

// life is a pod's: one container that ends, one that is stopped. What fails is
// cleaned up as the plan would.
func (n *node) life() error {
	ctx := n.t.Context()
	err := n.live(ctx)
	again(n.t, "remove the pod", func() error { return n.tryRemove(ctx) })
	return err
}

func (n *node) live(ctx context.Context) error {
	config := n.sandboxConfig("p1")
	sb, err := n.RunPodSandbox(ctx, config, "")
	if err != nil {
		return err
	}
	for _, cc := range [][]string{{"exit", "3"}, {"deaf"}} {
		id, err := n.CreateContainer(ctx, sb, containerConfig(cc[0], 0, cc...), config)
		if err != nil {
			return err
		}
		if err := n.StartContainer(ctx, id); err != nil {
			return err
		}
		if cc[0] == "exit" {
			n.awaitExit("p1", id, 5*time.Second)
		} else if err := n.NotePostStart(ctx, id); err != nil {
			return err
		}
		<-time.After(150 * time.Millisecond) // the end becomes durable; the deaf one is deaf
	}
	return nil
}

func (n *node) tryRemove(ctx context.Context) error {
	s := n.Observe("p1")
	for _, c := range s.Containers {
		if err := n.StopContainer(ctx, c.ID, 200*time.Millisecond); err != nil {
			return err
		}
		if err := n.RemoveContainer(ctx, c.ID); err != nil {
			return err
		}
	}
	for _, sb := range s.Sandboxes {
		if err := n.StopPodSandbox(ctx, sb.ID); err != nil {
			return err
		}
		if err := n.RemovePodSandbox(ctx, sb.ID); err != nil {
			return err
		}
	}
	if left := n.Observe("p1"); !left.Empty() {
		return fmt.Errorf("left %+v", left)
	}
	return nil
}

func again(t testing.TB, what string, f func() error) {
	t.Helper()
	var err error
	for range 4 {
		if err = f(); err == nil {
			return
		}
		t.Logf("%s: %v", what, err)
	}
	t.Fatalf("%s: %v", what, err)
}
