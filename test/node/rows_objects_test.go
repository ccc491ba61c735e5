package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/test/bed"
)

// objectCanary is the value of a Secret that a container gets and never prints.
const objectCanary = "canary-of-an-object-8125"

// fromObjects refers to what TestObjectsOfFiles writes. The container only tells
// what it may tell.
const fromObjects = `envFrom:
- {prefix: ALL_, configMapRef: {name: settings}}
- {secretRef: {name: nowhere, optional: true}}
env:
- {name: MODE, valueFrom: {configMapKeyRef: {name: settings, key: mode}}}
- {name: NONE, valueFrom: {configMapKeyRef: {name: settings, key: none, optional: true}}}
- {name: TEXT, value: <$(MODE)>}`

const settings = `apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {mode: fast, my.key: dotted}
`

const credentials = `apiVersion: v1
kind: Secret
metadata: {name: credentials}
stringData: {password: ` + objectCanary + `}
`

// TestObjectsOfFiles: ConfigMaps and Secrets stand beside the pods that use
// them. A pod whose object is missing waits with kubelet's reason and words and
// starts when it comes; a file of a Secret that others may read is refused; and
// what a Secret holds is in nothing that the daemon writes or says.
func TestObjectsOfFiles(t *testing.T) {
	n := newRowsNode(t, bed.AgentOptions{Args: []string{"-v", "9"}})
	n.write(t, "eager", spec("", show+"\n"+fromObjects))
	n.write(t, "keyless", spec("", show+"\nenv: [{name: V, valueFrom: {configMapKeyRef: {name: settings, key: none}}}]"))
	secretive := "command: [/podtool, sleep, forever]\nenv: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: credentials, key: password}}}]"
	n.write(t, "secretive", spec("", secretive))

	n.waits(t, "eager", `configmap "settings" not found`)
	n.waits(t, "secretive", `secret "credentials" not found`)
	must(t, n.a.WriteManifest("settings", settings))
	s := n.shown(t, "eager", "app")
	for name, want := range map[string]string{"MODE": "fast", "TEXT": "<fast>", "ALL_mode": "fast", "ALL_my.key": "dotted", "NONE": "?"} {
		if got := s.env(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	n.waits(t, "keyless", "couldn't find key none in ConfigMap default/settings")

	file := filepath.Join(n.a.Manifests, "credentials.yaml")
	must(t, n.a.WriteManifest("credentials", credentials)) // mode 0644
	n.saysOf(t, "Secret default/credentials and has mode 0644", "chmod 600 "+file)
	must(t, os.Chmod(file, 0o600))
	p := n.pod(t, "secretive", "running", inPhase(corev1.PodRunning))
	must(t, n.b.WaitCatches(n.ctx, "podtool", int(unix.SIGTERM))) // until then it may be runc, with runc's variables
	n.hasVariable(t, p, "PASSWORD="+objectCanary)

	must(t, n.a.WriteManifest("settings", strings.Replace(settings, "fast", "slow", 1)+"---\n"+strings.Replace(settings, "settings", "more", 1)))
	must(t, n.a.WriteManifest("broken", "apiVersion: v1\nkind: Secret\nmetadata: {name: broken}\ndata: {password: "+objectCanary+"}\n"))
	n.saysOf(t, "broken.yaml")
	n.isNowhere(t, p)
}

// waits waits until the pod's container waits for its configuration.
func (n *rowsNode) waits(t *testing.T, name, message string) {
	t.Helper()
	n.pod(t, name, "waiting: "+message, func(p *corev1.Pod) bool {
		for _, c := range p.Status.ContainerStatuses {
			if w := c.State.Waiting; w != nil && w.Reason == "CreateContainerConfigError" && w.Message == message {
				return true
			}
		}
		return false
	})
}

// saysOf waits until the command line tells of a file's problem in these words.
func (n *rowsNode) saysOf(t *testing.T, words ...string) {
	t.Helper()
	f := &faultNode{T: t, ctx: n.ctx, b: n.b, a: n.a}
	f.until("the daemon tells "+strings.Join(words, ", "), rowLimit, func() bool {
		out, _ := n.a.CLI(n.ctx, "pods")
		for _, w := range words {
			if !strings.Contains(out, w) {
				return false
			}
		}
		return true
	})
}

// hasVariable demands that a process of the pod has the variable.
func (n *rowsNode) hasVariable(t *testing.T, p *corev1.Pod, variable string) {
	t.Helper()
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	must(t, err)
	for _, e := range environs {
		group, _ := os.ReadFile(filepath.Join(filepath.Dir(e), "cgroup"))
		text, _ := os.ReadFile(e)
		if strings.Contains(string(group), "pod"+string(p.UID)+"/") && strings.Contains("\x00"+string(text), "\x00"+variable+"\x00") {
			return
		}
	}
	t.Errorf("no process of pod %s has the variable", p.Name)
}

// isNowhere demands that the Secret's value is in nothing that the daemon wrote
// and in no answer of the command line.
func (n *rowsNode) isNowhere(t *testing.T, p *corev1.Pod) {
	t.Helper()
	found, err := bed.FindBytes([]byte(objectCanary), n.a.Log(), n.b.ContainerdLog(), n.a.RunDir(), n.a.StateDir(), n.a.RootDir(), n.a.PodLogs())
	must(t, err)
	if len(found) > 0 {
		t.Errorf("the value of a Secret is in %v", found)
	}
	id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
	for _, args := range [][]string{
		{"pods"}, {"pods", "-o", "yaml"}, {"pods", "-o", "json"}, {"pods", "-o", "wide"}, {"ps"}, {"ps", "-o", "yaml"}, {"ps", "-o", "json"},
		{"inspect", p.Name}, {"inspect", p.Name, "-o", "yaml"}, {"inspect", p.Name, "-o", "json"}, {"inspect", id}, {"inspect", id, "-o", "json"},
		{"images"}, {"stats"}, {"check"}, {"config"}, {"events"}, {"explain", p.Name}, {"drift"},
	} {
		out, _ := n.a.CLI(n.ctx, args...) // some find something, some are not built yet
		if strings.Contains(out, objectCanary) {
			t.Errorf("the value of a Secret is in what %v answers", args)
		}
	}
	if out, err := n.a.CLI(n.ctx, "inspect", p.Name, "-o", "yaml"); err != nil || !strings.Contains(out, p.Name) {
		t.Errorf("inspect says %v, %s: the look proves nothing", err, out)
	}
}
