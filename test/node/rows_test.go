package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/logs"
	"nodeagent/internal/test/need"
	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// rowLimit bounds each wait of these tests.
var rowLimit = need.Slow(20 * time.Second)

// rowsNode is a node on which many pods run at once, each of which shows one
// behaviour.
type rowsNode struct {
	ctx context.Context
	b   *bed.Bed
	a   *bed.AgentProcess

	kept map[string]string // specs of pods whose manifests are not written yet
}

func newRowsNode(t *testing.T, a bed.AgentOptions) *rowsNode {
	t.Helper()
	ctx, b, agent := newNode(t, bed.Options{}, a)
	return &rowsNode{ctx: ctx, b: b, a: agent}
}

// shown is what "podtool show" prints.
type shown struct {
	UID, GID   int
	Groups     []int
	Hostname   string
	Cwd        string
	Args, Env  []string
	Status     map[string]string
	Namespaces map[string]string
	OOMScore   string `json:"oomScoreAdj"`
	Cgroup     string
	Mounts     []string
	Addrs      []string
}

// cgroup returns the path of the container's cgroup of a v1 controller, or of
// the unified hierarchy for "".
func (s shown) cgroup(t *testing.T, controller string) string {
	t.Helper()
	for line := range strings.SplitSeq(s.Cgroup, "\n") {
		parts := strings.SplitN(line, ":", 3)
		if len(parts) < 3 {
			continue
		}
		for name := range strings.SplitSeq(parts[1], ",") {
			if name == controller {
				return parts[2]
			}
		}
	}
	t.Fatalf("no controller %q among\n%s", controller, s.Cgroup)
	return ""
}

// mount returns the line of mountinfo of a mount point, or "".
func (s shown) mount(point string) string {
	found := ""
	for _, line := range s.Mounts {
		if f := strings.Fields(line); len(f) > 4 && f[4] == point {
			found = line
		}
	}
	return found
}

// spec is a manifest's spec: what the whole pod has, then one container.
func spec(ofPod, ofContainer string) string {
	text := ""
	for _, part := range []struct{ indent, lines string }{{"  ", ofPod}, {"    ", ofContainer}} {
		if part.indent == "    " {
			text += "  terminationGracePeriodSeconds: 2\n  containers:\n  - name: app\n"
			if !strings.Contains(ofContainer, "image:") {
				text += "    image: " + image.Example + "\n"
			}
		}
		for line := range strings.SplitSeq(strings.TrimSpace(part.lines), "\n") {
			if strings.TrimSpace(line) != "" {
				text += part.indent + line + "\n"
			}
		}
	}
	return text
}

// write writes a pod's manifest.
func (n *rowsNode) write(t *testing.T, name, spec string) {
	t.Helper()
	must(t, n.a.WriteManifest(name, manifest(name, spec)))
}

// begin writes the manifest of a pod that was kept back, unless it did so before.
func (n *rowsNode) begin(t *testing.T, name string) {
	t.Helper()
	if text, ok := n.kept[name]; ok {
		delete(n.kept, name)
		n.write(t, name, text)
	}
}

// pod waits until ok holds of the pod and returns it. Its namespace is default,
// unless the name says another: NAMESPACE/NAME.
func (n *rowsNode) pod(t *testing.T, name, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	n.begin(t, name)
	ctx, cancel := context.WithTimeout(n.ctx, rowLimit)
	defer cancel()
	var last *corev1.Pod
	full := name + "-node"
	if !strings.Contains(name, "/") {
		full = "default/" + full
	}
	err := n.a.WaitPods(ctx, func(pods map[string]*corev1.Pod) bool {
		if p := pods[full]; p != nil {
			last = p
			return ok(p)
		}
		return false
	})
	if err != nil {
		t.Fatalf("pod %s is not %s: %v\n%+v", name, what, err, statusOf(last))
	}
	return last
}

func inPhase(phases ...corev1.PodPhase) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		for _, ph := range phases {
			if p.Status.Phase == ph {
				return true
			}
		}
		return false
	}
}

// ended waits for a pod's end and returns it.
func (n *rowsNode) ended(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	return n.pod(t, name, "ended", inPhase(corev1.PodSucceeded, corev1.PodFailed))
}

// log returns the log of a container of the pod, both streams in one.
func (n *rowsNode) log(p *corev1.Pod, container string, attempt int) string {
	var out bytes.Buffer
	path := filepath.Join(n.a.PodLogs(), p.Namespace+"_"+p.Name+"_"+string(p.UID), container, fmt.Sprintf("%d.log", attempt))
	_ = logs.Read(n.ctx, path, logs.ReadOptions{Tail: -1}, &out, &out)
	return out.String()
}

// printed waits until a running container's log ends with a whole line, and
// returns the log.
func (n *rowsNode) printed(t *testing.T, name, container string) string {
	t.Helper()
	p := n.pod(t, name, "running", inPhase(corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed))
	for end := time.Now().Add(rowLimit); time.Now().Before(end); {
		if text := n.log(p, container, 0); strings.HasSuffix(text, "\n") {
			return text
		}
		select {
		case <-n.ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatalf("container %s of pod %s printed nothing", container, name)
	return ""
}

// shown returns what the pod's container shows of itself.
func (n *rowsNode) shown(t *testing.T, name, container string) shown {
	t.Helper()
	var s shown
	text := n.printed(t, name, container)
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatalf("container %s of pod %s printed %q: %v", container, name, text, err)
	}
	return s
}

// namespaces of a process.
func namespaces(t *testing.T, pid int) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, ns := range []string{"net", "ipc", "uts", "pid", "mnt", "user"} {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns))
		must(t, err)
		all[ns] = link
	}
	return all
}

// dial opens a connection from the node.
func (n *rowsNode) dial(address string) (c net.Conn, err error) {
	err = n.b.Do(func() error {
		c, err = net.DialTimeout("tcp", address, 5*time.Second)
		return err
	})
	return c, err
}

// get is the body that a port answers a request with.
func (n *rowsNode) get(address string) (string, error) {
	c, err := n.dial(address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
		return "", err
	}
	var all bytes.Buffer
	_, err = all.ReadFrom(c)
	_, body, _ := strings.Cut(all.String(), "\r\n\r\n")
	return body, err
}

// importImage puts an image made for the test into the bed's containerd.
func (n *rowsNode) importImage(t *testing.T, change func(*image.Spec), shell bool) {
	t.Helper()
	root, err := bed.ModuleRoot(n.ctx)
	must(t, err)
	tool, err := image.Podtool(n.ctx, root)
	must(t, err)
	s := image.ExampleSpec(tool)
	if shell {
		s, err = image.ShellSpec(tool)
		must(t, err)
	}
	change(&s)
	var tar bytes.Buffer
	must(t, image.Write(&tar, s))
	c, err := n.b.Dial()
	must(t, err)
	defer c.Close()
	made, err := c.Import(n.ctx, &tar)
	must(t, err)
	for _, m := range made {
		must(t, containerd.NewImage(c, m).Unpack(n.ctx, ""))
	}
	// What nothing refers to goes now, not in the middle of the test.
	must(t, n.b.Collect(n.ctx))
}
