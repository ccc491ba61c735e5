package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/test/env"
	"nodeagent/internal/test/need"
	"nodeagent/internal/test/power"
	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// TestPowerCut cuts the power of a whole node at random moments while pods come,
// end and go, and boots it again: daemon and containerd start, and what the
// daemon had shown stays true. The disk is a file system of its own that is shut
// down with nothing flushed; a boot is a new bed, with new namespaces, empty
// tmpfs and another boot id, on that disk. NODE_CUTS sets the number of cuts,
// NODE_SEED repeats a row of moments as far as a node can.
func TestPowerCut(t *testing.T) {
	need.Have(t, need.Root)
	cuts, seed := env.Number(t, "NODE_CUTS", 4), env.Seed(t, "NODE_SEED")
	for name, plugins := range map[string]bool{"bridge": false, "plugins": true} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Duration(cuts)*time.Minute)
			defer cancel()
			newOutage(t, ctx, seed, plugins).run(int(cuts))
		})
	}
}

func (n *outage) run(cuts int) {
	n.boot(true)
	warm(n.T, n.ctx, n.bed, n.agent)
	empty := n.left()
	if _, bridge := empty["link cni0"]; bridge != (n.more != "") {
		n.Fatalf("a plugin's bridge is there: %t", bridge)
	}
	for range cuts {
		n.churn()
		n.cut()
		began := time.Now()
		n.boot(false)
		up := time.Since(began)
		n.settled()
		n.Logf("boot %d: daemon ready after %s, pods after %s", n.boots, up.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		if n.Failed() {
			return
		}
	}
	n.end(empty)
}

// outage is a node whose disk outlives its beds.
type outage struct {
	*testing.T
	ctx   context.Context
	rng   *rand.Rand
	dir   string // short and the same at every boot, as a node's paths are
	boots int
	puts  int
	more  string // of the daemon's configuration

	bed   *bed.Bed
	agent *bed.AgentProcess
	seen  *bed.Ledger
	stop  func() // ends the watch
}

func newOutage(t *testing.T, ctx context.Context, seed uint64, plugins bool) *outage {
	t.Helper()
	sweepOutages()
	dir, err := os.MkdirTemp("/tmp", fmt.Sprintf("nap-%d-", os.Getpid()))
	must(t, err)
	n := &outage{T: t, ctx: ctx, rng: rand.New(rand.NewPCG(seed, 0)), dir: dir, seen: bed.NewLedger()}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(n.path("agent.log"))
			t.Logf("…%s", log[max(0, len(log)-6000):])
		}
		if n.bed != nil {
			n.stop()
			must(t, n.bed.Close())
		}
		_ = unix.Unmount(n.path("disk/run"), unix.MNT_DETACH)
		_ = unix.Unmount(n.path("disk"), unix.MNT_DETACH)
		must(t, os.RemoveAll(dir))
	})
	must(t, os.Mkdir(n.path("disk"), 0o755))
	must(t, host(ctx, "truncate", "-s", "256M", n.path("image")))
	must(t, host(ctx, "mkfs.ext4", "-q", n.path("image")))
	if plugins {
		must(t, n.plugins())
	}
	return n
}

// plugins makes pods get their network from the CNI project's bridge, whose
// addresses are kept on the disk, too: they outlive the pods that had them.
func (n *outage) plugins() error {
	n.more = fmt.Sprintf("  cniConfDir: %q\n  cniBinDir: /usr/lib/cni\n", n.path("net.d"))
	conf := fmt.Sprintf(`{"cniVersion":"0.4.0","name":"power","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,
		"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.245.0.0/24"}]]}}]}`, n.path("disk/ipam"))
	return errors.Join(os.Mkdir(n.path("net.d"), 0o755), os.WriteFile(n.path("net.d/10-power.conflist"), []byte(conf), 0o644))
}

// held are the addresses that the plugin keeps for somebody. A file without
// content is one that the plugin did not sync before the power went: nobody can
// tell whose it was, and no DEL takes it back.
func (n *outage) held() (held []string) {
	n.Helper()
	all, err := filepath.Glob(n.path("disk/ipam/power/10.245.*"))
	must(n.T, err)
	return slices.DeleteFunc(all, func(path string) bool {
		info, err := os.Stat(path)
		return err != nil || info.Size() == 0
	})
}

// sweepOutages removes what tests that were killed have left.
func sweepOutages() {
	dirs, _ := filepath.Glob("/tmp/nap-*-*")
	for _, dir := range dirs {
		pid, _, _ := strings.Cut(strings.TrimPrefix(dir, "/tmp/nap-"), "-")
		if _, err := os.Stat("/proc/" + pid); err == nil {
			continue
		}
		_ = unix.Unmount(filepath.Join(dir, "disk/run"), unix.MNT_DETACH)
		_ = unix.Unmount(filepath.Join(dir, "disk"), unix.MNT_DETACH)
		_ = os.RemoveAll(dir)
	}
}

func (n *outage) path(name string) string { return filepath.Join(n.dir, name) }

func host(ctx context.Context, argv ...string) error {
	if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
	}
	return nil
}

// boot makes a bed on the disk and starts containerd and the daemon there.
func (n *outage) boot(first bool) {
	n.Helper()
	n.boots++
	_, err := power.Mount(n.path("image"), n.path("disk"))
	must(n.T, err)
	must(n.T, os.MkdirAll(n.path("disk/run"), 0o755))
	must(n.T, unix.Mount("none", n.path("disk/run"), "tmpfs", 0, "mode=755"))
	b, err := bed.Start(n.ctx, bed.Options{Private: true})
	must(n.T, err)
	n.bed, n.stop = b, func() {}
	must(n.T, b.Kill()) // the containerd that every bed starts with
	must(n.T, n.furnish())
	must(n.T, b.StartAgain(n.ctx))
	if first {
		must(n.T, b.Import(n.ctx))
		must(n.T, syncDisk(n.path("disk"))) // the test's own import syncs nothing
	}
	n.agent, err = b.NewAgent(n.ctx, bed.AgentOptions{RunDir: n.path("disk/run"), Manifests: n.path("disk/manifests"), NodeAgent: n.more})
	must(n.T, err)
	must(n.T, n.move())
	must(n.T, n.agent.Start(n.ctx))
	n.seen.Boot()
	n.stop = n.watch()
}

// furnish puts into the bed's mount namespace what differs from boot to boot.
func (n *outage) furnish() error {
	id := fmt.Sprintf("%08x-0000-4000-8000-000000000000\n", n.boots)
	disk := n.path("disk")
	if err := errors.Join(os.WriteFile(n.path("boot_id"), []byte(id), 0o444), os.MkdirAll(filepath.Join(disk, "containerd"), 0o711)); err != nil {
		return err
	}
	return n.bed.Do(func() error {
		return errors.Join(
			unix.Mount(n.path("boot_id"), "/proc/sys/kernel/random/boot_id", "", unix.MS_BIND, ""),
			unix.Mount(filepath.Join(disk, "containerd"), filepath.Join(n.bed.Dir(), "root"), "", unix.MS_BIND, ""))
	})
}

// move gives the daemon paths that are the same at every boot.
func (n *outage) move() error {
	text, err := os.ReadFile(n.agent.ConfigFile())
	if err != nil {
		return err
	}
	was := n.agent.Dir
	n.agent.Dir = n.path("disk")
	for _, d := range []string{n.agent.StateDir(), n.agent.RootDir(), n.agent.PodLogs()} {
		err = errors.Join(err, os.MkdirAll(d, 0o755))
	}
	_ = os.Remove(n.agent.Log())
	err = errors.Join(err, os.Symlink(n.path("agent.log"), n.agent.Log()))
	return errors.Join(err, os.WriteFile(n.agent.ConfigFile(), []byte(strings.ReplaceAll(string(text), was, n.agent.Dir)), 0o600))
}

func syncDisk(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// cut ends everything: the disk first, so that nothing of what the programs do
// about their end reaches it.
func (n *outage) cut() {
	n.Helper()
	n.seen.Dark() // before, not after: what is shown in between may be lost
	must(n.T, power.Cut(n.path("disk"), power.FlushNothing))
	n.down()
}

func (n *outage) down() {
	n.Helper()
	n.stop()
	must(n.T, n.bed.Close())
	n.bed = nil
	must(n.T, unix.Unmount(n.path("disk/run"), 0))
	must(n.T, host(n.ctx, "umount", n.path("disk")))
	// Until the last of the bed's mount namespace is gone the file system is, and
	// mounting the image again would give that one, dead as it is.
	for used(n.path("image")) && n.ctx.Err() == nil {
		n.pause(5 * time.Millisecond)
	}
}

// used tells whether a loop device stands on the file.
func used(image string) bool {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	return slices.ContainsFunc(files, func(f string) bool {
		b, err := os.ReadFile(f)
		return err == nil && strings.TrimSpace(string(b)) == image
	})
}

// watch gives what the daemon shows to the ledger.
func (n *outage) watch() (stop func()) {
	ctx, cancel := context.WithCancel(n.ctx)
	var wg sync.WaitGroup
	agent := n.agent
	wg.Go(func() {
		for c, err := range agent.Watch(ctx) {
			if err != nil {
				return
			}
			n.seen.See(c)
		}
	})
	return func() { cancel(); wg.Wait() }
}

var powerSpecs = []string{
	"  containers:\n  - {name: c, image: IMAGE, command: [/podtool, sleep, forever]}\n",
	"  restartPolicy: Never\n  containers:\n  - {name: c, image: IMAGE, command: [/podtool, exit, '7', 300ms]}\n",
	"  restartPolicy: Never\n  containers:\n  - {name: c, image: IMAGE, command: [/podtool, exit, '0']}\n",
	"  restartPolicy: OnFailure\n  containers:\n  - {name: c, image: IMAGE, command: [/podtool, print, '50', 10ms]}\n",
	"  containers:\n  - {name: c, image: IMAGE, command: [/podtool, exit, '1']}\n",
	"  initContainers:\n  - {name: i, image: IMAGE, command: [/podtool, print, '3']}\n  containers:\n  - {name: c, image: IMAGE, command: [/podtool, sleep, forever]}\n",
}

// churn writes and removes manifests, then waits for any moment.
func (n *outage) churn() {
	n.Helper()
	for range 6 + n.rng.IntN(10) {
		there, err := filepath.Glob(filepath.Join(n.agent.Manifests, "*.yaml"))
		must(n.T, err)
		if len(there) > 8 || len(there) > 0 && n.rng.IntN(3) == 0 {
			must(n.T, os.Remove(there[n.rng.IntN(len(there))]))
		} else {
			must(n.T, n.put())
		}
		if n.rng.IntN(2) == 0 {
			n.pause(time.Duration(n.rng.Int64N(int64(150 * time.Millisecond))))
		}
	}
	// What an operator wrote must be there, or this is no test of the daemon.
	must(n.T, syncDir(n.agent.Manifests))
	n.pause(time.Duration(n.rng.Int64N(int64(700 * time.Millisecond))))
}

func (n *outage) put() error {
	n.puts++
	name := fmt.Sprintf("p%d", n.puts)
	text := "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + "}\nspec:\n  terminationGracePeriodSeconds: 2\n" +
		strings.ReplaceAll(powerSpecs[n.rng.IntN(len(powerSpecs))], "IMAGE", image.Example)
	tmp := filepath.Join(n.agent.Manifests, "."+name+".tmp")
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(n.agent.Manifests, name+".yaml"))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (n *outage) pause(d time.Duration) { bed.Pause(n.ctx, d) }

// settled waits until every pod that shall run does, and those that have ended
// are shown as before; then it looks at what must never have been seen.
func (n *outage) settled() {
	n.Helper()
	entries, err := filepath.Glob(filepath.Join(n.agent.Manifests, "*.yaml"))
	must(n.T, err)
	n.await(fmt.Sprintf("%d pods as they shall be", len(entries)), func(pods []corev1.Pod) bool {
		for i := range pods {
			if p := &pods[i]; !bed.Ended(p) && !bed.Ready(p) && !crashes(p) {
				return false
			}
		}
		return len(pods) == len(entries)
	})
	for _, s := range n.seen.Illegal() {
		n.Error(s)
	}
}

// await asks until ok says yes of the pods that the daemon shows.
func (n *outage) await(what string, ok func([]corev1.Pod) bool) {
	n.Helper()
	for end := time.Now().Add(60 * time.Second); ; n.pause(20 * time.Millisecond) {
		pods, err := n.agent.Pods(n.ctx)
		if err == nil && ok(pods) {
			return
		}
		if time.Now().After(end) || n.ctx.Err() != nil {
			n.Fatalf("boot %d: not %s: %v, %+v", n.boots, what, err, pods)
		}
	}
}

// crashes tells a pod whose container fails again and again by its order.
func crashes(p *corev1.Pod) bool {
	return p.Spec.RestartPolicy != corev1.RestartPolicyNever && len(p.Spec.Containers[0].Command) > 1 && p.Spec.Containers[0].Command[1] == "exit"
}

// end removes all pods and looks at what is left of them.
func (n *outage) end(empty map[string]string) {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.ctx, 60*time.Second)
	defer cancel()
	must(n.T, n.agent.RemoveManifests())
	n.await("gone", func(pods []corev1.Pod) bool { return len(pods) == 0 })
	// Where all pods had ended before the last boot, it began none, and some of what is
	// there for good comes with the first that is begun.
	warm(n.T, ctx, n.bed, n.agent)
	var diff []string
	for {
		diff = bed.Snapshot(empty).Diff(n.left())
		if len(diff) == 0 || ctx.Err() != nil {
			break
		}
		n.pause(50 * time.Millisecond)
	}
	if len(diff) > 0 {
		n.Errorf("left after %d boots:\n%s", n.boots, strings.Join(diff, "\n"))
	}
	for _, s := range n.seen.Illegal() {
		n.Error(s)
	}
	n.down()
	must(n.T, host(n.ctx, "e2fsck", "-fn", n.path("image")))
	n.Logf("%d boots, %d pods, %d of them seen to end", n.boots, n.puts, n.seen.Seen())
}

// left is all that a pod can leave in a node of this boot, and on the disk, under
// names that do not differ from boot to boot.
func (n *outage) left() map[string]string {
	n.Helper()
	s, err := n.bed.Snapshot(n.ctx)
	must(n.T, err)
	out := map[string]string{}
	for k, v := range s {
		out[strings.ReplaceAll(k, n.bed.ID(), "BED")] = v
	}
	for _, path := range n.held() {
		out["plugin's address "+filepath.Base(path)] = ""
	}
	for _, dir := range []string{"state", "root", "pods"} {
		err := filepath.WalkDir(filepath.Join(n.path("disk"), dir), func(path string, d fs.DirEntry, err error) error {
			out["disk "+strings.TrimPrefix(path, n.dir)] = ""
			return err
		})
		must(n.T, err)
	}
	return out
}
