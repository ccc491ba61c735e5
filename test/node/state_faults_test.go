package node

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/test/bed"
)

// TestStateFilesDamaged damages every file that the daemon keeps, while it is
// dead. It must start all the same, touch no container, end what was ending,
// say how something ended, start something new, and leave nothing.
func TestStateFilesDamaged(t *testing.T) {
	n := newFaultNode(t, func(n *faultNode) bed.AgentOptions {
		return bed.AgentOptions{NodeAgent: n.cniDirs()}
	})
	_, held, remove := n.plugin()
	n.write("plugged", "Always", "[/podtool, sleep, forever, plugged]")
	n.ready("plugged", 20*time.Second)
	n.keep = append(n.keep, "plugged.yaml")
	n.look() // both are bystanders now
	for _, d := range damages() {
		n.suffer(d.name, func(n *faultNode) { n.damaged(d) })
	}
	n.oneRuns("plugged")
	must(t, n.a.RemoveManifests())
	n.until("the plugin's address is given back", 20*time.Second, func() bool { return len(held()) == 0 })
	remove()
	ctx, cancel := context.WithTimeout(n.ctx, 30*time.Second)
	defer cancel()
	n.forget(n.empty)
	must(t, n.b.WaitSame(ctx, n.empty))
}

// damage does harm to one file; canary is a file that nobody may touch.
type damage struct {
	name string
	do   func(path, canary string) error
}

func damages() []damage {
	content := func(change func([]byte) []byte) func(string, string) error {
		return func(path, _ string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, change(b), 0o600)
		}
	}
	return []damage{
		{"cut", content(func(b []byte) []byte { return b[:len(b)/2] })},
		{"flipped", content(func(b []byte) []byte {
			if len(b) > 0 {
				b[len(b)/2] ^= 0x20
			}
			return b
		})},
		{"emptied", content(func([]byte) []byte { return nil })},
		{"removed", func(path, _ string) error { return os.Remove(path) }},
		{"replaced by a link", func(path, canary string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.Symlink(canary, path)
		}},
		{"replaced by a directory", func(path, _ string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.MkdirAll(filepath.Join(path, "x"), 0o755)
		}},
	}
}

// damaged does one kind of harm to all files of the daemon.
func (n *faultNode) damaged(d damage) {
	going := onePod("going", "Always", "[/podtool, deaf]")
	must(n.T, n.a.WriteManifest("going", strings.Replace(going, "GracePeriodSeconds: 2", "GracePeriodSeconds: 6", 1)))
	n.ready("going", 20*time.Second)
	n.write("ending", "Never", "[/podtool, exit, '7', forever]") // until the daemon is dead
	n.ready("ending", 20*time.Second)
	must(n.T, n.a.RemoveManifest("going"))
	n.until("going's stop is on record", 10*time.Second, func() bool {
		stops, _ := filepath.Glob(filepath.Join(n.a.RunDir(), "stop", "*"))
		return len(stops) > 0
	})
	must(n.T, n.a.Kill())
	n.until("the other's end is on record", 10*time.Second, func() bool {
		for _, pid := range n.podtools("exit\x007") { // it may be deaf yet
			_ = unix.Kill(pid, unix.SIGTERM)
		}
		exits, _ := filepath.Glob(filepath.Join(n.a.RunDir(), "exit", "*.json"))
		return len(exits) > 0
	})
	canary := filepath.Join(n.dir, "canary")
	must(n.T, os.WriteFile(canary, []byte("sings"), 0o600))
	files := n.stateFiles()
	for _, f := range files {
		must(n.T, d.do(f, canary))
	}
	n.Logf("harmed %d files: %s", len(files), strings.Join(n.relative(files), " "))
	must(n.T, n.a.Start(n.ctx))
	n.ready("bystander", 10*time.Second)
	n.ready("plugged", 10*time.Second)
	n.untouched()
	n.await("ending", "ended", 10*time.Second, func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	n.until("going is gone", 20*time.Second, func() bool { return len(n.podtools("deaf")) == 0 })
	n.write("new", "Always", "[/podtool, sleep, forever]")
	n.ready("new", 10*time.Second)
	if b, err := os.ReadFile(canary); err != nil || string(b) != "sings" {
		n.Errorf("what a link led to was changed: %q, %v", b, err)
	}
	n.forget(n.before)
}

// stateFiles lists the daemon's own files, in the order of their names. Pins of
// namespaces are mounts that the test does not see: the files below them are no
// state.
func (n *faultNode) stateFiles() []string {
	n.Helper()
	var all []string
	for _, dir := range []string{n.a.RunDir(), n.a.StateDir()} {
		must(n.T, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && !slices.Contains([]string{"ipc", "uts", "pid"}, d.Name()) {
				all = append(all, path)
			}
			return err
		}))
	}
	if len(all) < 8 {
		n.Errorf("only %d files to harm", len(all))
	}
	return all
}

func (n *faultNode) relative(files []string) []string {
	var out []string
	for _, f := range files {
		rel, _ := filepath.Rel(n.a.Dir, f)
		parts := strings.Split(rel, "/")
		for i, p := range parts { // ids say nothing
			if len(p) > 20 {
				parts[i] = p[:4] + "…" + filepath.Ext(p)
			}
		}
		out = append(out, strings.Join(parts, "/"))
	}
	return out
}

// forget takes files that a fault may have cost the daemon, or that it put
// aside, out of a snapshot and from the disk.
func (n *faultNode) forget(s bed.Snapshot) {
	bad, _ := filepath.Glob(filepath.Join(n.a.Dir, "*", "*.bad-*"))
	deep, _ := filepath.Glob(filepath.Join(n.a.Dir, "*", "*", "*.bad-*"))
	for _, f := range append(bad, deep...) {
		must(n.T, os.RemoveAll(f))
	}
	for k := range s {
		path, isFile := strings.CutPrefix(k, "file ")
		if !isFile || !strings.Contains(path, "/run/") && !strings.Contains(path, "/state/") {
			continue
		}
		if _, err := os.Lstat(filepath.Join(n.b.Dir(), path)); err != nil {
			delete(s, k)
		}
	}
}
