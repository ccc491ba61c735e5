package cluster_test

import (
	"context"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/test/bed"
	"nodeagent/test/cluster"
	"nodeagent/test/image"
)

// TestNodeOutages is a node whose API server, or the way there, goes wrong in every
// way that RELIABILITY's faults 17 to 24 name.
func TestNodeOutages(t *testing.T) {
	n := newControlPlane(t)
	f, file := newFront(n)
	n.AgentProcess = bed.Agent(t, n.bed, bed.AgentOptions{Kubelet: n.authentication(), Args: []string{"--kubeconfig", file}})
	n.kubectl("wait", "--for=create", "node/node", "--timeout=60s")
	n.registered()
	n.apply(sleeper("one", ""))
	n.kubectl("wait", ready, "pod/one", "--timeout=60s")
	for _, c := range []struct {
		name  string
		begin func()
	}{
		{"refused", func() { f.refuse.Store(true); f.cut() }},
		{"black hole", func() { f.hole.Store(true); f.stall() }},
		{"500", func() { f.breaks(says(http.StatusInternalServerError)); f.cut() }},
		{"503", func() { f.breaks(says(http.StatusServiceUnavailable)); f.cut() }},
		{"429", func() { f.breaks(says(http.StatusTooManyRequests, "Retry-After", "1")); f.cut() }},
	} {
		t.Run(c.name, func(t *testing.T) { n.in(t).outage(f, c.begin) })
	}
	t.Run("slow", func(t *testing.T) { n.in(t).slowServer(f) })
	t.Run("stalled watch", func(t *testing.T) { n.in(t).stalledWatch(f) })
	t.Run("gone", func(t *testing.T) { n.in(t).gone410(f) })
	t.Run("empty list", func(t *testing.T) { n.in(t).emptyList(f) })
	t.Run("containerd killed", func(t *testing.T) { n.in(t).runtimeAway() })
	t.Run("one stuck pod", func(t *testing.T) { n.in(t).oneStuck() })
	t.Run("same name", func(t *testing.T) { n.in(t).sameName() })
	t.Run("killed while telling", func(t *testing.T) { n.in(t).killedWhileTelling(f) })
	t.Run("expired", func(t *testing.T) { n.in(t).expiredCertificate(f, file) })
}

// container is the id of the first container of a pod, and how often it was restarted.
func (n *node) container(pod string) string {
	n.t.Helper()
	return n.jsonpath("{.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}", "pod", pod)
}

// runs waits until the daemon says that a pod runs.
func (n *node) runs(pod string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.ctx, 2*time.Minute)
	defer cancel()
	if err := n.WaitPhase(ctx, pod, corev1.PodRunning); err != nil {
		n.t.Fatalf("pod %s: %v", pod, err)
	}
}

// back lets everything go right again.
func (f *front) back() {
	f.refuse.Store(false)
	f.hole.Store(false)
	f.breaks(nil)
	f.cut()
}

// outage: while the server cannot be asked nothing ends, a manifest is obeyed and what
// happens is remembered; when it is back all of it is told.
func (n *node) outage(f *front, begin func()) {
	defer f.back()
	one := n.container("one")
	begin()
	if err := n.WriteManifest("alone", sleeper("alone", "")); err != nil {
		n.t.Fatal(err)
	}
	n.runs("default/alone-node")
	n.runs("default/one")
	f.back()
	n.kubectl("wait", "--for=create", "pod/alone-node", "--timeout=120s")
	n.kubectl("wait", ready, "pod/alone-node", "pod/one", "node/node", "--timeout=120s")
	if now := n.container("one"); now != one {
		n.t.Errorf("the pod's container is %s, before %s", now, one)
	}
	if err := n.RemoveManifest("alone"); err != nil {
		n.t.Fatal(err)
	}
	n.kubectl("wait", "--for=delete", "pod/alone-node", "--timeout=60s")
	// The watch has to be there again, too.
	n.apply(sleeper("later", ""))
	n.kubectl("wait", ready, "pod/later", "--timeout=60s")
	n.kubectl("delete", "pod", "later", "--timeout=60s")
}

// slowServer: a server that takes two seconds for each answer delays, and nothing else.
func (n *node) slowServer(f *front) {
	f.breaks(slow(2 * time.Second))
	defer f.back()
	n.apply(sleeper("patient", ""))
	n.kubectl("wait", ready, "pod/patient", "node/node", "--timeout=60s")
	n.kubectl("delete", "pod", "patient", "--timeout=60s")
}

// stalledWatch: connections that carry nothing more are noticed without a word from
// the other end, and nothing that happened meanwhile is missed.
func (n *node) stalledWatch(f *front) {
	watched := make(chan struct{})
	var once sync.Once
	f.breaks(func(_ http.ResponseWriter, r *http.Request) bool {
		if watches(r) {
			once.Do(func() { close(watched) })
		}
		return false
	})
	defer f.back()
	f.cut()
	select {
	case <-watched:
	case <-time.After(time.Minute):
		n.t.Fatal("nobody watches the pods")
	}
	begun := time.Now()
	f.stall()
	n.apply(sleeper("unheard", ""))
	n.kubectl("wait", ready, "pod/unheard", "--timeout=120s")
	n.t.Logf("a pod that was made when the connections had stalled was Ready after %.1f s", time.Since(begun).Seconds())
	n.kubectl("delete", "pod", "unheard", "--timeout=60s")
}

// watches tells that a request is for the pods of this node.
func watches(r *http.Request) bool { return r.Method == http.MethodGet && r.URL.Path == "/api/v1/pods" }

// gone410: a server that has forgotten the version is asked for everything, and
// nothing ends for it.
func (n *node) gone410(f *front) {
	defer f.back()
	one := n.container("one")
	var times atomic.Int32
	anew := make(chan struct{})
	var once sync.Once
	f.breaks(func(w http.ResponseWriter, r *http.Request) bool {
		q := r.URL.Query()
		switch {
		case !watches(r):
			return false
		case q.Get("watch") != "" && q.Get("sendInitialEvents") != "true" && times.Add(1) == 1:
			return forgotten(w)
		case times.Load() > 0:
			once.Do(func() { close(anew) })
		}
		return false
	})
	f.cut()
	select {
	case <-anew:
	case <-time.After(2 * time.Minute):
		n.t.Fatal("after 410 nobody asks for everything")
	}
	n.apply(sleeper("after", ""))
	n.kubectl("wait", ready, "pod/after", "pod/one", "--timeout=60s")
	if now := n.container("one"); now != one {
		n.t.Errorf("the pod's container is %s, before %s", now, one)
	}
	n.kubectl("delete", "pod", "after", "--timeout=60s")
}

const several = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: several}
spec:
  replicas: 6
`

// emptyList: a list that suddenly has none of the pods is not believed before the
// server was asked once more.
func (n *node) emptyList(f *front) {
	defer f.back()
	n.apply(several + strings.TrimPrefix(podTemplate("several", ""), "\n"))
	n.kubectl("rollout", "status", "deployment/several", "--timeout=90s")
	const ids = "{.items[*].status.containerStatuses[0].containerID} {.items[*].status.containerStatuses[0].restartCount}"
	before := n.jsonpath(ids, "pods", "-l", "app=several")
	running, err := n.bed.Running(n.ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	var hidden atomic.Int32
	confirmed := make(chan struct{})
	var once sync.Once
	f.breaks(func(w http.ResponseWriter, r *http.Request) bool {
		q := r.URL.Query()
		switch everything := q.Get("watch") == "" || q.Get("sendInitialEvents") == "true"; {
		case !watches(r):
			return false
		case hidden.Load() == 0 && !everything: // have it ask for everything
			return forgotten(w)
		case hidden.Load() == 0:
			hidden.Add(1)
			q.Set("fieldSelector", "spec.nodeName=another") // a real answer, without a pod
			r.URL.RawQuery = q.Encode()
			f.forward(w, r, f.admin)
			return true
		case q.Get("watch") == "":
			once.Do(func() { close(confirmed) })
		}
		return false
	})
	f.cut()
	select {
	case <-confirmed:
	case <-time.After(3 * time.Minute):
		n.t.Fatalf("the server was not asked once more after %d empty lists", hidden.Load())
	}
	n.kubectl("rollout", "status", "deployment/several", "--timeout=60s")
	if now := n.jsonpath(ids, "pods", "-l", "app=several"); now != before {
		n.t.Errorf("the pods are %s, before %s", now, before)
	}
	after, err := n.bed.Running(n.ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	for id, mark := range running {
		if after[id] != mark {
			n.t.Errorf("container %s ended", id)
		}
	}
	f.back()
	n.kubectl("delete", "deployment", "several", "--timeout=60s")
	n.kubectl("wait", "--for=delete", "pods", "-l", "app=several", "--timeout=60s")
}

// sameName: a pod that is made again under its name while the node still ends the
// first is another pod, and its status is its own.
func (n *node) sameName() {
	pod := `
apiVersion: v1
kind: Pod
metadata: {name: again}
spec:
  nodeName: node
  terminationGracePeriodSeconds: 5
  containers: [{name: c, image: ` + image.Shell + `, imagePullPolicy: Never, command: [/bin/sh, -c, "trap 'sleep 1; exit 0' TERM; echo $HOSTNAME; while :; do sleep 0.1; done"]}]
`
	n.apply(pod)
	n.kubectl("wait", ready, "pod/again", "--timeout=60s")
	uid, first := n.jsonpath("{.metadata.uid}", "pod", "again"), n.container("again")
	n.kubectl("delete", "pod", "again", "--force", "--grace-period=0", "--wait=false")
	n.kubectl("wait", "--for=delete", "pod/again", "--timeout=60s")
	n.apply(pod)
	n.kubectl("wait", ready, "pod/again", "--timeout=60s")
	if now := n.jsonpath("{.metadata.uid}", "pod", "again"); now == uid {
		n.t.Error("the pod is still the same")
	}
	if now := n.container("again"); now == first || !strings.HasSuffix(now, " 0") {
		n.t.Errorf("its container is %s, that of the first was %s", now, first)
	}
	id, _, _ := strings.Cut(strings.TrimPrefix(first, "containerd://"), " ")
	for deadline := time.Now().Add(time.Minute); ; {
		all, err := n.bed.Running(n.ctx)
		if err == nil && all[id] == "" {
			break
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("the first one's container still runs: %v", err)
		}
	}
	n.kubectl("wait", ready, "pod/again", "--timeout=60s")
	n.kubectl("delete", "pod", "again", "--timeout=60s")
}

// expiredCertificate: with a certificate that has expired pods stay and manifests are
// obeyed; a new one is taken as soon as it is there.
func (n *node) expiredCertificate(f *front, file string) {
	i := cluster.NodeIdentity("node")
	i.Lifetime = -time.Minute
	old, err := n.c.Kubeconfig("node-expired", i)
	if err != nil {
		n.t.Fatal(err)
	}
	good, err := os.ReadFile(file)
	if err != nil {
		n.t.Fatal(err)
	}
	bad, err := os.ReadFile(old)
	if err != nil {
		n.t.Fatal(err)
	}
	put := func(text []byte) {
		n.t.Helper()
		if err := os.WriteFile(file+".new", text, 0o600); err != nil {
			n.t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			n.t.Fatal(err)
		}
	}
	one := n.container("one")
	put(bad) // straight to the server, which does not take it
	n.restart()
	if err := n.WriteManifest("alone", sleeper("alone", "")); err != nil {
		n.t.Fatal(err)
	}
	n.runs("default/alone-node")
	n.runs("default/one")
	put(good)
	n.kubectl("wait", "--for=create", "pod/alone-node", "--timeout=90s")
	n.kubectl("wait", ready, "pod/alone-node", "pod/one", "node/node", "--timeout=90s")
	if now := n.container("one"); now != one {
		n.t.Errorf("the pod's container is %s, before %s", now, one)
	}
	if err := n.RemoveManifest("alone"); err != nil {
		n.t.Fatal(err)
	}
	n.kubectl("wait", "--for=delete", "pod/alone-node", "--timeout=60s")
}
