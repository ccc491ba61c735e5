package machine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"nodeagent/test/machine/guest"
)

// unitNode is a guest on which nodeagent was installed as docs/install.md says.
type unitNode struct {
	*testing.T
	ctx context.Context
	g   *guest.Guest

	wrong []string // what awaitPhases saw last
}

// installed is a guest after the document's sections 1 to 4, with the images
// imported.
var installed = &guest.State{Name: "installed", Make: install}

func install(ctx context.Context, g *guest.Guest) error {
	if err := bring(ctx, g); err != nil {
		return err
	}
	steps, err := installSteps(ctx)
	if err != nil {
		return err
	}
	for _, s := range steps {
		if s.section >= "5." {
			break
		}
		if out, err := s.run(ctx, g); err != nil {
			return fmt.Errorf("%s: %w\n%s", s, err, out)
		}
	}
	_, err = g.Run(ctx, "nodeagent", "images", "import", imageTar)
	return err
}

// newUnitNode starts a guest on which all that was done.
func newUnitNode(t *testing.T, limit time.Duration, o guest.Options) *unitNode {
	t.Helper()
	o.From = installed
	g := guest.Start(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return &unitNode{T: t, ctx: ctx, g: g}
}

// on is n for a subtest.
func (n *unitNode) on(t *testing.T) *unitNode { return &unitNode{T: t, ctx: n.ctx, g: n.g} }

// sh runs a script that must do well, and returns what it says.
func (n *unitNode) sh(script string) string {
	n.Helper()
	out, err := n.g.Shell(n.ctx, script)
	if err != nil {
		n.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// unitPod is a pod as "nodeagent pods -o json" shows it.
type unitPod struct {
	Name, Phase, Reason string
	Restarts            int
	IPs                 []string
	Containers          []struct {
		ID, SandboxID, State, Reason string
		Latest                       bool
		Pid                          int
		ExitCode                     *int
		StartedAt                    time.Time
	}
}

// last is the newest run of the pod's only container.
func (p unitPod) last() (id, state string, pid, code int) {
	for _, c := range p.Containers {
		if c.Latest {
			code = -1
			if c.ExitCode != nil {
				code = *c.ExitCode
			}
			return c.ID, c.State, c.Pid, code
		}
	}
	return "", "", 0, -1
}

// pods are all pods by the name in their manifest.
func (n *unitNode) pods() map[string]unitPod {
	n.Helper()
	pods, err := n.look()
	if err != nil {
		n.Fatal(err)
	}
	return pods
}

// look asks for the pods. While twenty of them start on one emulated CPU,
// containerd may need more than the five seconds that the command gives it, which
// are meant for somebody at a terminal: no answer then tells nothing of the pods,
// and is for await to bear. The error is that alone.
func (n *unitNode) look() (map[string]unitPod, error) {
	n.Helper()
	var out bytes.Buffer
	code, err := n.g.Exec(n.ctx, guest.Command{Argv: []string{"sh", "-c", "nodeagent pods -o json 2>/root/why"}, Output: &out})
	const unreachable = 5
	switch {
	case err == nil && code == unreachable:
		return nil, errors.New(n.sh("cat /root/why"))
	case err != nil || code != 0:
		n.Fatalf("nodeagent pods ended with %d, %v: %s", code, err, n.sh("cat /root/why"))
	}
	var list struct{ Items []unitPod }
	if err := json.Unmarshal(out.Bytes(), &list); err != nil {
		n.Fatalf("%v\n%s", err, out.String())
	}
	all := map[string]unitPod{}
	for _, p := range list.Items {
		all[strings.TrimSuffix(p.Name, "-guest")] = p
	}
	return all, nil
}

// running are the containers that run, by pod, with what tells one run from
// another: id, process and number of restarts.
func (n *unitNode) running() map[string]string {
	n.Helper()
	all := map[string]string{}
	for name, p := range n.pods() {
		if id, state, pid, _ := p.last(); state == "Running" {
			all[name] = fmt.Sprintf("%s pid %d, %d restarts", id, pid, p.Restarts)
		}
	}
	return all
}

// await asks until ok says yes.
func (n *unitNode) await(what string, limit time.Duration, ok func() bool) time.Duration {
	n.Helper()
	began := time.Now()
	for looks := 1; !ok(); looks++ {
		if time.Since(began) > limit || n.ctx.Err() != nil {
			n.Fatalf("not within %s and %d looks: %s %v\n%s", limit, looks, what, n.wrong, n.sh("nodeagent pods -o wide; systemctl --no-pager --lines=20 status nodeagent.service || true"))
		}
		select {
		case <-n.ctx.Done():
		case <-time.After(time.Second): // a look costs an emulated CPU as much as starting a pod
		}
	}
	return time.Since(began)
}

// awaitPhases waits until each pod has the phase.
func (n *unitNode) awaitPhases(limit time.Duration, want map[string]string) {
	n.Helper()
	n.seen(limit, arePhases(want))
	n.await("pods as wanted", time.Minute, func() bool {
		pods, err := n.look()
		n.wrong = nil
		if err != nil {
			n.wrong = []string{err.Error()}
			return false
		}
		for name, phase := range want {
			if pods[name].Phase != phase {
				n.wrong = append(n.wrong, fmt.Sprintf("%s is %q and not %s", name, pods[name].Phase, phase))
			}
		}
		return len(n.wrong) == 0
	})
}

// show is a property of the unit.
func (n *unitNode) show(property string) string {
	n.Helper()
	return n.sh("systemctl show --value -p " + property + " nodeagent.service")
}

// ready tells that systemd has the unit's daemon for started and running.
func (n *unitNode) ready() bool {
	n.Helper()
	return n.show("ActiveState") == "active" && n.show("SubState") == "running"
}

// manifest puts a pod of one busybox container into the manifest directory.
func (n *unitNode) manifest(name, policy, script string, more ...string) {
	n.Helper()
	n.manifests(map[string]string{name: unitManifest(name, policy, script, more...)})
}

// manifests puts several there, all at once as far as the guest can tell.
func (n *unitNode) manifests(all map[string]string) {
	n.Helper()
	var script strings.Builder
	script.WriteString("cd /etc/kubernetes/manifests\n")
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&script, "cat > .%s <<'EOF'\n%s\nEOF\n", name, all[name])
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&script, "mv .%s %s.yaml\n", name, name)
	}
	n.sh(script.String())
}

// unitManifest is such a pod; more are lines of its spec.
func unitManifest(name, policy, script string, more ...string) string {
	command, _ := json.Marshal([]string{"sh", "-c", script})
	spec := ""
	for _, line := range more {
		spec += "  " + line + "\n"
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata:
  name: %s
spec:
  restartPolicy: %s
  terminationGracePeriodSeconds: 1
%s  containers:
  - name: main
    image: %s
    command: %s`, name, policy, spec, busybox, command)
}

// unconfined spares a pod the making of a seccomp filter, of which an emulated CPU has for
// half a second, where many pods are only there to be found again.
const unconfined = "securityContext: {seccompProfile: {type: Unconfined}}"

// forever is a script that obeys TERM at once.
const forever = "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done"

// state is what a stopped unit must leave: pins of namespaces, records, sockets,
// and the files of pods' /dev/shm.
func (n *unitNode) state() string {
	n.Helper()
	return n.sh(`cd /run/nodeagent && find . -mindepth 1 ! -name nodeagent.sock ! -path './podnet*' | sort
ls /run/netns | sort
grep -h . /run/nodeagent/ns/*/shm/kept
grep -o ' /run/n[^ ]*' /proc/self/mountinfo | sort`)
}
