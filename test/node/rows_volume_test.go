package node

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// volumePods are the pods of TestVolumes; host is a directory of the node.
func volumePods(host string) map[string]string {
	hostPath := func(path, kind string) string {
		return "  volumes: [{name: v, hostPath: {path: " + filepath.Join(host, path) + ", type: '" + kind + "'}}]\n"
	}
	mounts := func(mounts string) string { return "\nvolumeMounts: [" + mounts + "]" }
	tryWrite := shell("for d in /v /v/inner; do touch $d/x 2>/dev/null && echo $d written || echo $d read-only; done")
	return map[string]string{
		"emptydir": "  volumes:\n  - {name: disk, emptyDir: {}}\n  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}\n" +
			"  initContainers:\n  - {name: init, image: " + image.Example + ", command: [/podtool, seq, write, /disk/a, one, ;, write, /memory/b, two], volumeMounts: [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}]}\n" +
			spec("securityContext: {runAsUser: 1000, fsGroup: 5000}",
				"command: [/podtool, seq, cat, /ro/a, /memory/b, ;, write, /memory/c, three, ;, show, ;, sleep, forever]\nvolumeMounts: [{name: disk, mountPath: /ro, readOnly: true}, {name: memory, mountPath: /memory}]"),
		"hostfile":  hostPath("file", "File") + spec("restartPolicy: Never", "command: [/podtool, cat, /v]"+mounts("{name: v, mountPath: /v, readOnly: true}")),
		"hostmade":  hostPath("made/deep", "DirectoryOrCreate") + spec("restartPolicy: Never", "command: [/podtool, write, /v/x, made]"+mounts("{name: v, mountPath: /v}")),
		"hostwrong": hostPath("file", "Directory") + spec("", "command: [/podtool, sleep, forever]"+mounts("{name: v, mountPath: /v}")),
		"downward": "  volumes:\n  - name: d\n    downwardAPI:\n      defaultMode: 0440\n      items:\n      - {path: name, fieldRef: {fieldPath: metadata.name}}\n" +
			"      - {path: deep/memory, resourceFieldRef: {containerName: app, resource: limits.memory, divisor: 1Mi}}\n" +
			"  - name: p\n    projected: {sources: [{downwardAPI: {items: [{path: ns, fieldRef: {fieldPath: metadata.namespace}}]}}]}\n" +
			spec("", shell("cat /d/name; echo; cat /d/deep/memory; echo; cat /p/ns; echo; stat -L -c %a /d/name; touch /d/x 2>/dev/null || echo read-only")+
				"\nresources: {limits: {memory: 64Mi}}"+mounts("{name: d, mountPath: /d}, {name: p, mountPath: /p}")),
		"subpath": "  volumes: [{name: v, emptyDir: {}}]\n" +
			"  initContainers:\n  - {name: init, image: " + image.Shell + ", command: [sh, -c, mkdir -p /v/deep/a && touch /v/deep/a/count], volumeMounts: [{name: v, mountPath: /v}]}\n" +
			spec("restartPolicy: OnFailure", "env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]\n"+
				shell("echo run $(cat /a/count | wc -l) >&2; echo x >> /a/count; ls -1 /all; [ $(wc -l < /a/count) = 1 ] && exit 3; cat /file")+
				mounts("{name: v, mountPath: /a, subPath: deep/a}, {name: v, mountPath: /e, subPathExpr: of-$(POD)}, {name: v, mountPath: /all}, {name: v, mountPath: /file, subPath: deep/a/count}")),
		"subout": "  volumes: [{name: v, emptyDir: {}}]\n" +
			"  initContainers:\n  - {name: init, image: " + image.Shell + ", command: [sh, -c, ln -s /etc /v/out], volumeMounts: [{name: v, mountPath: /v}]}\n" +
			spec("", "command: [/podtool, sleep, forever]"+mounts("{name: v, mountPath: /x, subPath: out}")),
		"ro":    hostPath("tree", "") + spec("", tryWrite+mounts("{name: v, mountPath: /v, readOnly: true}")),
		"rro":   hostPath("tree", "") + spec("", tryWrite+mounts("{name: v, mountPath: /v, readOnly: true, recursiveReadOnly: Enabled}")),
		"rroif": hostPath("tree", "") + spec("", tryWrite+mounts("{name: v, mountPath: /v, readOnly: true, recursiveReadOnly: IfPossible}")),
		"takes": "  volumes:\n  - {name: disk, emptyDir: {}}\n  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 8Mi}}\n" +
			"  - {name: host, hostPath: {path: " + filepath.Join(host, "filled") + ", type: DirectoryOrCreate}}\n" +
			spec("", shell("for f in disk:3 memory:2 host:5; do dd if=/dev/zero of=/${f%%:*}/file bs=1048576 count=${f##*:} 2>/dev/null; done; echo filled")+
				mounts("{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}, {name: host, mountPath: /host}")),
		"spread": hostPath("shared", "") + spec("", shell("echo waiting; until [ -e /v/inner/file ]; do sleep 0.1; done; cat /v/inner/file")+mounts("{name: v, mountPath: /v, mountPropagation: HostToContainer}")),
	}
}

// TestVolumes: what containers see of their volumes.
func TestVolumes(t *testing.T) {
	n := newRowsNode(t, bed.AgentOptions{Kubelet: "volumeStatsAggPeriod: 1h"})
	// The cgroup of a class is made once and stays.
	n.write(t, "class", spec("restartPolicy: Never", "command: [/podtool, exit, '0']\nresources: {requests: {memory: 1Mi}}"))
	n.ended(t, "class")
	must(t, n.a.RemoveManifests())
	waitGone(t, n.ctx, n.a)
	host := hostTree(t, n)
	before, err := n.b.Snapshot(n.ctx)
	must(t, err)
	for name, text := range volumePods(host) {
		n.write(t, name, text)
	}
	t.Run("emptyDir", n.emptyDirs)
	t.Run("hostPath", func(t *testing.T) { n.hostPaths(t, host) })
	t.Run("downward API", n.downwardVolume)
	t.Run("subPath", n.subPaths)
	t.Run("recursive read-only", n.recursiveReadOnly)
	t.Run("propagation", func(t *testing.T) { n.propagation(t, host) })
	t.Run("command line", n.volumesShown)
	t.Run("usage", n.volumesTaken)
	must(t, n.a.RemoveManifests())
	// What pods leave in the host's own directories is not theirs to remove.
	waitGone(t, n.ctx, n.a)
	for _, left := range []string{"made", "filled", "shared/inner", "tree/inner/x"} {
		must(t, os.RemoveAll(filepath.Join(host, left)))
	}
	ctx, cancel := context.WithTimeout(n.ctx, 3*rowLimit)
	defer cancel()
	must(t, n.b.WaitSame(ctx, before))
}

// hostTree makes what the pods' hostPath volumes are of, with a file system
// mounted in it.
func hostTree(t *testing.T, n *rowsNode) string {
	t.Helper()
	dir := filepath.Join(n.a.RootDir(), "host") // the root directory is on a shared mount
	must(t, os.MkdirAll(filepath.Join(dir, "tree", "inner"), 0o755))
	must(t, os.MkdirAll(filepath.Join(dir, "shared"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("of the host\n"), 0o644))
	inner := filepath.Join(dir, "tree", "inner")
	must(t, n.b.Do(func() error { return unix.Mount("tmpfs", inner, "tmpfs", 0, "size=64k") }))
	t.Cleanup(func() {
		_ = n.b.Do(func() error { return unix.Unmount(inner, unix.MNT_DETACH) })
		_ = os.RemoveAll(dir)
	})
	return dir
}

// shell is a container that runs a line of shell and then stays.
func shell(line string) string {
	return "image: " + image.Shell + "\ncommand: [sh, -c, '" + line + "; exec sleep 1000']"
}

// volume is where a volume of the pod is on the node.
func (n *rowsNode) volume(p *corev1.Pod, plugin, name string) string {
	return filepath.Join(n.a.RootDir(), "pods", string(p.UID), "volumes", "kubernetes.io~"+plugin, name)
}

// logEnds waits until a container's log ends in a text, and returns the log.
func (n *rowsNode) logEnds(t *testing.T, p *corev1.Pod, container string, attempt int, end string) string {
	t.Helper()
	for limit := time.Now().Add(rowLimit); time.Now().Before(limit) && !strings.HasSuffix(n.log(p, container, attempt), end); {
		time.Sleep(10 * time.Millisecond)
	}
	return n.log(p, container, attempt)
}

func (n *rowsNode) emptyDirs(t *testing.T) {
	p := n.pod(t, "emptydir", "running", inPhase(corev1.PodRunning))
	text := n.logEnds(t, p, "app", 0, "}\n")
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

func (n *rowsNode) hostPaths(t *testing.T, host string) {
	if text := n.log(n.ended(t, "hostfile"), "app", 0); text != "of the host\n" {
		t.Errorf("the host's file is read as %q", text)
	}
	n.ended(t, "hostmade")
	if text, err := os.ReadFile(filepath.Join(host, "made", "deep", "x")); err != nil || string(text) != "made\n" {
		t.Errorf("in a directory that was made is %q, %v", text, err)
	}
	want := "MountVolume.SetUp failed for volume \"v\" : hostPath type check failed: " + filepath.Join(host, "file") + " is not a directory"
	n.pod(t, "hostwrong", "waiting for a directory", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodPending && p.Status.Reason == "FailedMount" && p.Status.Message == want
	})
}

func (n *rowsNode) downwardVolume(t *testing.T) {
	p := n.pod(t, "downward", "running", inPhase(corev1.PodRunning))
	if text := n.logEnds(t, p, "app", 0, "read-only\n"); text != "downward-node\n64\ndefault\n440\nread-only\n" {
		t.Errorf("the volumes show %q", text)
	}
}

// subPaths: the first run fails, and the second one gets its mounts anew, a file
// among them.
func (n *rowsNode) subPaths(t *testing.T) {
	p := n.pod(t, "subpath", "running again", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].RestartCount == 1 && p.Status.ContainerStatuses[0].State.Running != nil
	})
	want := "deep\nof-subpath-node\n"
	if text := n.logEnds(t, p, "app", 1, "x\nx\n"); !strings.Contains(text, want) || !strings.HasSuffix(text, "x\nx\n") {
		t.Errorf("the second run printed %q, want %q and the file", text, want)
	}
	n.pod(t, "subout", "refused", func(p *corev1.Pod) bool {
		if len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Waiting == nil {
			return false
		}
		w := p.Status.ContainerStatuses[0].State.Waiting
		return w.Reason == "CreateContainerConfigError" && w.Message == `failed to prepare subPath for volumeMount "v" of container "app"`
	})
}

func (n *rowsNode) recursiveReadOnly(t *testing.T) {
	for name, want := range map[string]struct {
		text string
		mode corev1.RecursiveReadOnlyMode
	}{
		"ro":    {"/v read-only\n/v/inner written\n", corev1.RecursiveReadOnlyDisabled},
		"rro":   {"/v read-only\n/v/inner read-only\n", corev1.RecursiveReadOnlyEnabled},
		"rroif": {"/v read-only\n/v/inner read-only\n", corev1.RecursiveReadOnlyEnabled},
	} {
		if text := n.logEnds(t, n.pod(t, name, "running", inPhase(corev1.PodRunning)), "app", 0, want.text); text != want.text {
			t.Errorf("pod %s printed %q, want %q", name, text, want.text)
		}
		p := n.pod(t, name, "running", inPhase(corev1.PodRunning))
		if m := p.Status.ContainerStatuses[0].VolumeMounts; len(m) != 1 || m[0].RecursiveReadOnly == nil || *m[0].RecursiveReadOnly != want.mode {
			t.Errorf("pod %s has the mounts %+v, want mode %s", name, m, want.mode)
		}
	}
}

// propagation: what a container mounts in a shared volume appears on the node
// and in a container that wants to see it, and goes with the volume's mount.
func (n *rowsNode) propagation(t *testing.T, host string) {
	if text := n.printed(t, "spread", "app"); text != "waiting\n" {
		t.Fatalf("the container that waits for a mount printed %q", text)
	}
	n.write(t, "mounter", "  volumes: [{name: v, hostPath: {path: "+filepath.Join(host, "shared")+"}}]\n"+
		spec("", shell("mkdir -p /v/inner; mount -t tmpfs none /v/inner && echo spread > /v/inner/file; echo mounted")+
			"\nsecurityContext: {privileged: true}\nvolumeMounts: [{name: v, mountPath: /v, mountPropagation: Bidirectional}]"))
	if text := n.printed(t, "mounter", "app"); text != "mounted\n" {
		t.Fatalf("the container that mounts printed %q", text)
	}
	p := n.pod(t, "spread", "running", inPhase(corev1.PodRunning))
	if text := n.logEnds(t, p, "app", 0, "spread\n"); text != "waiting\nspread\n" {
		t.Errorf("what another container mounted is seen as %q", text)
	}
	must(t, n.b.Do(func() error { return unix.Unmount(filepath.Join(host, "shared", "inner"), unix.MNT_DETACH) }))
}

// volumesShown: the command line tells what volumes take, and takes none of them
// for a difference.
func (n *rowsNode) volumesShown(t *testing.T) {
	out, err := n.a.CLI(n.ctx, "inspect", "emptydir-node", "--root-dir", n.a.RootDir())
	must(t, err)
	out, _, _ = strings.Cut(out, "Container init")
	for _, want := range []string{"disk (empty-dir): ", "memory (empty-dir): ", " of 1.0MiB"} {
		if !strings.Contains(out, want) {
			t.Errorf("inspect does not show %q:\n%s", want, out)
		}
	}
	if out, err := n.a.CLI(n.ctx, "drift"); strings.Contains(out, "mount") {
		t.Errorf("drift shows mounts, %v:\n%s", err, out)
	}
}

// TestHostPathOnADeadServer: a volume on a server that never answers keeps its
// own pod waiting, and says so; it holds up no other pod, nor its own removal.
func TestHostPathOnADeadServer(t *testing.T) {
	n := newRowsNode(t, bed.AgentOptions{})
	dir := deadServer(t)
	n.write(t, "stuck", "  volumes: [{name: v, hostPath: {path: "+dir+", type: Directory}}]\n"+
		spec("", "command: [/podtool, sleep, forever]\nvolumeMounts: [{name: v, mountPath: /v}]"))
	n.write(t, "other", spec("", "command: [/podtool, sleep, forever]"))
	n.pod(t, "other", "running", inPhase(corev1.PodRunning))
	n.pod(t, "stuck", "waiting for its server", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodPending && p.Status.Reason == "FailedMount" &&
			strings.Contains(p.Status.Message, "look at "+dir+": it does not answer")
	})
	n.write(t, "third", spec("", "command: [/podtool, sleep, forever]"))
	n.pod(t, "third", "running", inPhase(corev1.PodRunning))
	must(t, n.a.RemoveManifests())
	waitGone(t, n.ctx, n.a)
}
