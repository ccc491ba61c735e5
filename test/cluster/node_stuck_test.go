package cluster_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// killedWhileTelling kills the daemon while the API server is told that a pod is
// Ready, before it hears it and after: the next daemon tells what is true, and no
// container ends.
func (n *node) killedWhileTelling(f *front) {
	for _, heard := range []bool{false, true} {
		n.t.Run(fmt.Sprintf("heard %t", heard), func(t *testing.T) { n.in(t).killedTelling(f, heard) })
	}
}

func (n *node) killedTelling(f *front, heard bool) {
	defer f.back()
	name := fmt.Sprintf("told-%t", heard)
	telling := make(chan struct{})
	var once sync.Once
	f.breaks(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPatch || r.URL.Path != "/api/v1/namespaces/default/pods/"+name+"/status" {
			return false
		}
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil || !saysReady(body) {
			r.Body = io.NopCloser(bytes.NewReader(body))
			return false
		}
		if heard {
			again := r.Clone(context.WithoutCancel(r.Context()))
			again.Body = io.NopCloser(bytes.NewReader(body))
			f.forward(nowhere{http.Header{}}, again, f.node)
		}
		once.Do(func() { close(telling) })
		<-r.Context().Done() // the answer never comes
		return true
	})
	n.apply(sleeper(name, ""))
	select {
	case <-telling:
	case <-time.After(time.Minute):
		n.t.Fatal("nobody tells that the pod is Ready")
	}
	if err := n.Kill(); err != nil {
		n.t.Fatal(err)
	}
	before, err := n.bed.Running(n.ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	if got := n.jsonpath(`{.status.conditions[?(@.type=="Ready")].status}`, "pod", name); (got == "True") != heard {
		n.t.Errorf("the API server was told: %t, and shows Ready=%q", heard, got)
	}
	f.back()
	if err := n.Start(n.ctx); err != nil {
		n.t.Fatal(err)
	}
	n.kubectl("wait", ready, "pod/"+name, "--timeout=60s")
	if now := n.container(name); !strings.HasSuffix(now, " 0") {
		n.t.Errorf("its container is %s", now)
	}
	after, err := n.bed.Running(n.ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	for id, mark := range before {
		if after[id] != mark {
			n.t.Errorf("container %s ended", id)
		}
	}
	n.kubectl("delete", "pod", name, "--timeout=60s")
}

// saysReady tells that a patch of a status makes the pod Ready.
func saysReady(patch []byte) bool {
	var p struct{ Status corev1.PodStatus }
	if json.Unmarshal(patch, &p) != nil {
		return false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}

// nowhere is an answer that nobody gets.
type nowhere struct{ h http.Header }

func (n nowhere) Header() http.Header         { return n.h }
func (n nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n nowhere) WriteHeader(int)             {}
func (n nowhere) Flush()                      {}

// runtimeAway: a containerd that dies is told of, ends no container, and when it is
// back everything goes on.
func (n *node) runtimeAway() {
	before, err := n.bed.Running(n.ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	one := n.container("one")
	begun := time.Now()
	if err := n.bed.Kill(); err != nil {
		n.t.Fatal(err)
	}
	n.kubectl("wait", "--for=condition=Ready=False", "node/node", "--timeout=60s")
	noticed := time.Since(begun)
	if got := n.jsonpath(`{.status.conditions[?(@.type=="Ready")].message}`, "node", "node"); !strings.Contains(got, "container runtime is down") {
		n.t.Errorf("the node says %q", got)
	}
	if err := n.bed.StartAgain(n.ctx); err != nil {
		n.t.Fatal(err)
	}
	begun = time.Now()
	n.kubectl("wait", ready, "node/node", "pod/one", "--timeout=60s")
	n.t.Logf("figure: the API server heard of a containerd that died %.2f s later, and %.2f s after it was back that all is well", noticed.Seconds(), time.Since(begun).Seconds())
	n.apply(sleeper("after", ""))
	n.kubectl("wait", ready, "pod/after", "--timeout=60s")
	n.kubectl("delete", "pod", "after", "--timeout=60s")
	after, err := n.bed.Running(n.ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	for id, mark := range before {
		if after[id] != mark {
			n.t.Errorf("container %s ended", id)
		}
	}
	if now := n.container("one"); now != one {
		n.t.Errorf("the pod's container is %s, before %s", now, one)
	}
}

// oneStuck: a pod whose shim hangs keeps no other pod from coming and going, and the
// node stays Ready.
func (n *node) oneStuck() {
	n.apply(sleeper("stuck", ""))
	n.kubectl("wait", ready, "pod/stuck", "--timeout=60s")
	shim := n.shimOf("stuck")
	if err := unix.Kill(shim, unix.SIGSTOP); err != nil {
		n.t.Fatal(err)
	}
	defer func() { _ = unix.Kill(shim, unix.SIGCONT) }()
	n.kubectl("delete", "pod", "stuck", "--wait=false")
	n.apply(sleeper("free", ""))
	n.kubectl("wait", ready, "pod/free", "--timeout=60s")
	n.kubectl("delete", "pod", "free", "--timeout=60s")
	if out, err := n.CLI(n.ctx, "explain", "pod", "stuck"); err != nil || !strings.Contains(out, "stop") {
		n.t.Errorf("of the pod that hangs it is said %q, %v", out, err)
	}
	if got := n.jsonpath(`{.status.conditions[?(@.type=="Ready")].status}`, "node", "node"); got != "True" {
		n.t.Errorf("the node is Ready=%s", got)
	}
	if err := unix.Kill(shim, unix.SIGCONT); err != nil && !errors.Is(err, unix.ESRCH) {
		n.t.Fatal(err)
	}
	n.kubectl("wait", "--for=delete", "pod/stuck", "--timeout=120s")
}

// shimOf is the process that is the parent of a pod's container.
func (n *node) shimOf(pod string) int {
	n.t.Helper()
	pid := n.process(pod)
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // "pid (name) state ppid ..."
	if err != nil {
		n.t.Fatal(err)
	}
	var state string
	var parent int
	if _, err := fmt.Sscan(string(stat[bytes.LastIndexByte(stat, ')')+1:]), &state, &parent); err != nil || parent < 2 {
		n.t.Fatalf("the parent of %d is %d, %v", pid, parent, err)
	}
	return parent
}
