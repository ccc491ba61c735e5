package node

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// volumePods are the pods of TestVolumes.
func volumePods() map[string]string {
	return map[string]string{
		"emptydir": "  volumes:\n  - {name: disk, emptyDir: {}}\n  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}\n" +
			"  initContainers:\n  - {name: init, image: " + image.Example + ", command: [/podtool, seq, write, /disk/a, one, ;, write, /memory/b, two], volumeMounts: [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}]}\n" +
			spec("securityContext: {runAsUser: 1000, fsGroup: 5000}",
				"command: [/podtool, seq, cat, /ro/a, /memory/b, ;, write, /memory/c, three, ;, show, ;, sleep, forever]\nvolumeMounts: [{name: disk, mountPath: /ro, readOnly: true}, {name: memory, mountPath: /memory}]"),
	}
}

// TestVolumes: what containers see of their volumes.
func TestVolumes(t *testing.T) {
	n := newRowsNode(t, bed.AgentOptions{})
	before, err := n.b.Snapshot(n.ctx)
	must(t, err)
	for name, text := range volumePods() {
		n.write(t, name, text)
	}
	t.Run("emptyDir", n.emptyDirs)
	must(t, n.a.RemoveManifests())
	ctx, cancel := context.WithTimeout(n.ctx, 3*rowLimit)
	defer cancel()
	must(t, n.b.WaitSame(ctx, before))
}

// volume is where a volume of the pod is on the node.
func (n *rowsNode) volume(p *corev1.Pod, plugin, name string) string {
	return filepath.Join(n.a.RootDir(), "pods", string(p.UID), "volumes", "kubernetes.io~"+plugin, name)
}

func (n *rowsNode) emptyDirs(t *testing.T) {
	p := n.pod(t, "emptydir", "running", inPhase(corev1.PodRunning))
	text := n.printed(t, "emptydir", "app")
	if !strings.HasPrefix(text, "one\ntwo\n") {
		t.Errorf("what the init container wrote is read as %q", text)
	}
	for _, file := range []string{n.volume(p, "empty-dir", "disk") + "/a", n.volume(p, "empty-dir", "memory") + "/c"} {
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
	for _, want := range []struct{ point, options, kind string }{{"/ro", "ro,", ""}, {"/memory", "rw,", " - tmpfs "}} {
		found := false
		for line := range strings.SplitSeq(strings.ReplaceAll(text, `"`, "\n"), "\n") {
			if f := strings.Fields(line); len(f) > 5 && f[4] == want.point {
				found = strings.HasPrefix(f[5], want.options) && strings.Contains(line, want.kind)
			}
		}
		if !found {
			t.Errorf("%s is not mounted as %v: %s", want.point, want, text)
		}
	}
}
