package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/test/bed"
)

// writeObject writes a ConfigMap or Secret as the manifest directory wants them:
// a Secret's file is for root alone.
func (n *rowsNode) writeObject(t *testing.T, kind, name, data string) {
	t.Helper()
	text := "apiVersion: v1\nkind: " + kind + "\nmetadata: {name: " + name + "}\n" + data
	tmp := filepath.Join(n.a.Manifests, "."+name+".tmp")
	must(t, os.WriteFile(tmp, []byte(text), 0o600))
	must(t, os.Rename(tmp, filepath.Join(n.a.Manifests, name+".yaml")))
}

// objectPods are the pods of TestObjectVolumes.
func objectPods() map[string]string {
	return map[string]string{
		"shows": "  volumes:\n  - {name: c, configMap: {name: settings, items: [{key: a, path: dir/a, mode: 0400}, {key: b, path: b}]}}\n" +
			"  - {name: s, secret: {secretName: credentials, defaultMode: 0440}}\n" +
			"  - name: p\n    projected: {sources: [{configMap: {name: settings, items: [{key: a, path: a}]}}, {secret: {name: credentials}}, {secret: {name: absent, optional: true}}]}\n" +
			spec("securityContext: {fsGroup: 5000}", shell("cat /c/dir/a /c/b /p/a; stat -L -c %a:%g /c/dir/a /s/password; wc -c < /s/password; ls /p; touch /s/x 2>/dev/null || echo read-only; "+
				"until [ \"$(cat /c/dir/a)\" = two ] && [ \"$(cat /p/a)\" = two ]; do sleep 0.05; done; echo now $(cat /c/dir/a) $(cat /c/b) and still $(cat /sub)")+
				"\nvolumeMounts: [{name: c, mountPath: /c}, {name: s, mountPath: /s}, {name: p, mountPath: /p}, {name: c, mountPath: /sub, subPath: dir/a}]"),
		"waits": "  volumes: [{name: c, configMap: {name: later}}]\n" +
			spec("", shell("cat /c/a")+"\nvolumeMounts: [{name: c, mountPath: /c}]"),
		"key": "  volumes: [{name: c, configMap: {name: settings, items: [{key: none, path: x}]}}]\n" +
			spec("", shell("cat /c/x")+"\nvolumeMounts: [{name: c, mountPath: /c}]"),
	}
}

// TestObjectVolumes: containers see ConfigMaps and Secrets, and their changes;
// pods wait for what is missing; no secret is anywhere but in its volume.
func TestObjectVolumes(t *testing.T) {
	n := newRowsNode(t, bed.AgentOptions{Args: []string{"-v", "9"}})
	before, err := n.b.Snapshot(n.ctx)
	must(t, err)
	n.writeObject(t, "ConfigMap", "settings", "data: {a: one, b: \"first\\n\"}\n")
	n.writeObject(t, "Secret", "credentials", "stringData: {password: "+canary+"}\n")
	for name, text := range objectPods() {
		n.write(t, name, text)
	}
	p := n.pod(t, "shows", "running", inPhase(corev1.PodRunning))
	want := "onefirst\none440:5000\n440:5000\n" + fmt.Sprint(len(canary)) + "\na\npassword\nread-only\n"
	if text := n.logEnds(t, p, "app", 0, "read-only\n"); text != want {
		t.Errorf("the volumes show %q, want %q", text, want)
	}
	t.Run("waiting", n.objectsMissing)
	t.Run("secret", func(t *testing.T) {
		found, err := bed.FindBytes([]byte(canary), n.a.Log(), n.b.ContainerdLog(), n.a.RunDir(), n.a.StateDir(), n.a.PodLogs())
		must(t, err)
		if len(found) > 0 {
			t.Errorf("the secret is in %v", found)
		}
		for _, verb := range [][]string{{"inspect", "shows"}, {"pods", "-o", "yaml"}} {
			if out, err := n.a.CLI(n.ctx, verb...); err != nil || strings.Contains(out, canary) {
				t.Errorf("%v: %v, or the secret is in %s", verb, err, out)
			}
		}
	})
	t.Run("update", func(t *testing.T) {
		// A daemon that dies and comes back changes nothing that is shown, and what
		// changed meanwhile it shows then.
		data := filepath.Join(n.volume(p, "configmap", "c"), "..data")
		was, err := os.Readlink(data)
		must(t, err)
		must(t, n.a.Restart(n.ctx))
		n.pod(t, "shows", "running again", inPhase(corev1.PodRunning))
		if now, err := os.Readlink(data); err != nil || now != was {
			t.Errorf("another daemon made %s out of %s, %v", now, was, err)
		}
		must(t, n.a.Kill())
		n.writeObject(t, "ConfigMap", "settings", "data: {a: two, b: second, none: x}\n")
		must(t, n.a.Start(n.ctx))
		line := "now two second and still one\n"
		if text := n.logEnds(t, p, "app", 0, line); text != want+line {
			t.Errorf("after the change the log is %q", text)
		}
		if p := n.pod(t, "shows", "running on", inPhase(corev1.PodRunning)); p.Status.ContainerStatuses[0].RestartCount != 0 {
			t.Error("the change restarted the container")
		}
		n.pod(t, "key", "running", inPhase(corev1.PodRunning))
	})
	must(t, n.a.RemoveManifests())
	ctx, cancel := context.WithTimeout(n.ctx, 3*rowLimit)
	defer cancel()
	must(t, n.b.WaitSame(ctx, before))
}

func (n *rowsNode) objectsMissing(t *testing.T) {
	for name, want := range map[string]string{
		"waits": `MountVolume.SetUp failed for volume "c" : configmap "later" not found`,
		"key":   `MountVolume.SetUp failed for volume "c" : references non-existent config key: none`,
	} {
		n.pod(t, name, "waiting for its object", func(p *corev1.Pod) bool {
			return p.Status.Phase == corev1.PodPending && p.Status.Reason == "FailedMount" && p.Status.Message == want
		})
	}
	n.writeObject(t, "ConfigMap", "later", "data: {a: \"come\\n\"}\n")
	p := n.pod(t, "waits", "running", inPhase(corev1.PodRunning))
	if text := n.logEnds(t, p, "app", 0, "come\n"); text != "come\n" {
		t.Errorf("what came is read as %q", text)
	}
}
