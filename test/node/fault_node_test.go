package node

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
)

// faultLimit bounds each fault, so that one that never heals costs no more.
const faultLimit = 90 * time.Second

// faultNode is a node that suffers one fault after another. Beside what each
// does, it holds them all to the same invariants: a bystander's container is
// never touched, statuses never go back, and afterwards the node is as before.
type faultNode struct {
	*testing.T
	ctx       context.Context
	b         *bed.Bed
	a         *bed.AgentProcess
	dir       string       // of the test's own: a runc that can be told to fail
	empty     bed.Snapshot // without the bystander
	before    bed.Snapshot // with it
	keep      []string     // manifests of bystanders
	bystander map[string]string
}

// newFaultNode makes one. prepare, if given, is called before the daemon's
// directories are made, and says how the daemon differs.
func newFaultNode(t *testing.T, prepare func(*faultNode) bed.AgentOptions) *faultNode {
	t.Helper()
	need.Have(t, need.Root)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	n := &faultNode{T: t, ctx: ctx, dir: t.TempDir(), keep: []string{"bystander.yaml"}}
	must(t, faultyRunc(ctx, n.dir))
	n.b = bed.Containerd(t, bed.Options{Private: true, Path: n.dir})
	var a bed.AgentOptions
	if prepare != nil {
		a = prepare(n)
	}
	must(t, n.b.Import(ctx))
	n.a = bed.Agent(t, n.b, a)
	warm(t, ctx, n.b, n.a)
	must(t, n.b.Plant(ctx))
	var err error
	n.empty, err = n.b.Snapshot(ctx)
	must(t, err)
	must(t, n.a.WriteManifest("bystander", onePod("bystander", "Always", "[/podtool, sleep, forever]")))
	must(t, n.a.WaitPhase(ctx, "default/bystander-node", corev1.PodRunning))
	n.look()
	return n
}

// look notes how the node is without a fault.
func (n *faultNode) look() {
	n.Helper()
	must(n.T, n.b.WaitCatches(n.ctx, "podtool", int(unix.SIGTERM))) // until then a pod's process is runc
	var err error
	n.before, err = n.b.Snapshot(n.ctx)
	must(n.T, err)
	n.bystander, err = n.b.Running(n.ctx)
	must(n.T, err)
}

// suffer runs one fault and looks at the invariants, unless it was one after
// which there is no bystander any more.
func (n *faultNode) suffer(name string, fault func(*faultNode)) {
	n.Run(name, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(n.ctx, faultLimit)
		defer cancel()
		sub := *n
		sub.T, sub.ctx = t, ctx
		defer func() { n.bystander = sub.bystander }()
		h := bed.NewHistory()
		stop := follow(ctx, n.a, h)
		began := time.Now()
		fault(&sub)
		if !t.Failed() && sub.bystander != nil {
			_ = n.b.WaitCatches(ctx, "podtool", int(unix.SIGTERM)) // or removing takes the whole grace period
			sub.removeManifests()
			must(t, n.b.WaitSame(ctx, n.before))
		}
		stop()
		if sub.bystander != nil {
			sub.untouched()
			for _, s := range h.Illegal() {
				t.Error(s)
			}
		}
		t.Logf("took %s", time.Since(began).Round(10*time.Millisecond))
	})
	if n.Failed() { // what comes next would start from a spoilt node
		n.FailNow()
	}
}

// removeManifests removes all but the bystanders'.
func (n *faultNode) removeManifests() {
	n.Helper()
	entries, err := os.ReadDir(n.a.Manifests)
	must(n.T, err)
	for _, e := range entries {
		if !slices.Contains(n.keep, e.Name()) {
			must(n.T, os.RemoveAll(filepath.Join(n.a.Manifests, e.Name())))
		}
	}
}

// untouched: the bystander's container is the one that it was.
func (n *faultNode) untouched() {
	n.Helper()
	now, err := n.b.Running(n.ctx)
	must(n.T, err)
	for id, mark := range n.bystander {
		if now[id] != mark {
			n.Errorf("the bystander's container was %q and is %q", mark, now[id])
		}
	}
}

// follow gives every change that the daemon shows to h until stopped.
func follow(ctx context.Context, a *bed.AgentProcess, h *bed.History) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			for c, err := range a.Watch(ctx) {
				if err != nil {
					break
				}
				h.See(c)
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() { cancel(); <-done }
}

// write writes a manifest of one container that runs the command.
func (n *faultNode) write(name, policy, command string) {
	n.Helper()
	must(n.T, n.a.WriteManifest(name, onePod(name, policy, command)))
}

// await waits until ok holds of the pod and returns the pod as it was then.
func (n *faultNode) await(name, what string, limit time.Duration, ok func(*corev1.Pod) bool) *corev1.Pod {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.ctx, limit)
	defer cancel()
	began := time.Now()
	var last *corev1.Pod
	err := n.a.WaitPods(ctx, func(pods map[string]*corev1.Pod) bool {
		if p := pods["default/"+name+"-node"]; p != nil {
			last = p
			return ok(p)
		}
		return false
	})
	if err != nil {
		n.Fatalf("pod %s is not %s after %s: %v\n%+v", name, what, limit, err, statusOf(last))
	}
	n.Logf("pod %s is %s after %s", name, what, time.Since(began).Round(10*time.Millisecond))
	return last
}

func statusOf(p *corev1.Pod) any {
	if p == nil {
		return "never seen"
	}
	return p.Status
}

// ready waits until the pod is Ready.
func (n *faultNode) ready(name string, limit time.Duration) *corev1.Pod {
	n.Helper()
	return n.await(name, "Ready", limit, bed.Ready)
}

// restarted says yes of a pod whose only container runs for the nth time.
func restarted(times int32) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		return bed.Ready(p) && p.Status.ContainerStatuses[0].RestartCount == times
	}
}

// waitingFor says yes of a pod whose only container waits for one of the reasons.
func waitingFor(reasons ...string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		if len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Waiting == nil {
			return false
		}
		for _, r := range reasons {
			if p.Status.ContainerStatuses[0].State.Waiting.Reason == r {
				return true
			}
		}
		return false
	}
}

// until asks ok again and again until it says yes.
func (n *faultNode) until(what string, limit time.Duration, ok func() bool) {
	n.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit || n.ctx.Err() != nil {
			n.Fatalf("not within %s: %s\n%s", limit, what, n.a.LogTail(40))
		}
		select {
		case <-n.ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	n.Logf("%s after %s", what, time.Since(began).Round(10*time.Millisecond))
}

// healthy tells what /healthz says.
func (n *faultNode) healthy() bool {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
			err = n.b.Do(func() error { c, err = new(net.Dialer).DialContext(ctx, network, addr); return err })
			return c, err
		},
	}}
	resp, err := client.Get("http://127.0.0.1:10248/healthz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// sameDaemon fails unless the daemon is still the process that it was.
func (n *faultNode) sameDaemon(pid int) {
	n.Helper()
	if n.a.Pid != pid || n.a.Signal(0) != nil {
		n.Errorf("the daemon that ran as process %d is no more", pid)
	}
	select {
	case <-n.a.Exited():
		n.Errorf("the daemon ended: %v", n.a.Err())
	default:
	}
}

// podtools returns the processes whose command line holds the mark.
func (n *faultNode) podtools(mark string) []int {
	var pids []int
	for pid := range n.b.Processes() {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if exe, _, _ := strings.Cut(string(b), "\x00"); filepath.Base(exe) == "podtool" && strings.Contains(string(b), mark) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// oneRuns waits until one process with the mark runs, and no more: a container
// that has started is runc for another moment.
func (n *faultNode) oneRuns(mark string) {
	n.Helper()
	n.until("one process "+mark+" runs", 20*time.Second, func() bool { return len(n.podtools(mark)) == 1 })
}

// running returns the bed's containers beside the bystander's.
func (n *faultNode) running() map[string]string {
	n.Helper()
	all, err := n.b.Running(n.ctx)
	must(n.T, err)
	maps.DeleteFunc(all, func(id, _ string) bool { return n.bystander[id] != "" })
	return all
}

// logged tells whether the daemon's log holds the text.
func (n *faultNode) logged(text string) bool {
	b, err := os.ReadFile(n.a.Log())
	return err == nil && strings.Contains(string(b), text)
}

// faultyRunc puts a runc into dir that does what a file beside it says for
// containers whose configuration holds the file's text: "hang-create" makes it
// hang, "die-create" makes it die after the deed, once.
func faultyRunc(ctx context.Context, dir string) error {
	tools, err := bed.Tools(ctx, nil)
	if err != nil {
		return err
	}
	script := fmt.Sprintf(`#!/bin/sh
before= bundle= create=
for a in "$@"; do
	[ "$before" = --bundle ] && bundle=$a
	[ "$a" = create ] && create=1
	before=$a
done
told() { [ -n "$create" ] && [ -e "%[1]s/$1" ] && grep -q -F -f "%[1]s/$1" "$bundle/config.json"; }
if told hang-create; then exec sleep 1000; fi
if told die-create; then
	rm -f "%[1]s/die-create"
	"%[2]s/runc" "$@" || exit
	kill -9 $$
fi
exec "%[2]s/runc" "$@"
`, dir, tools)
	return os.WriteFile(filepath.Join(dir, "runc"), []byte(script), 0o755)
}
