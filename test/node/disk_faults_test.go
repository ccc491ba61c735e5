package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/test/bed"
)

// TestDiskFaults lets each directory of the daemon run full, out of inodes and
// read-only. The daemon stays up, also when it is started anew meanwhile, other
// pods feel nothing, and 10 s after there is room again everything works.
func TestDiskFaults(t *testing.T) {
	disks := map[string]*bed.Disk{}
	n := newFaultNode(t, func(n *faultNode) bed.AgentOptions {
		for _, dir := range []string{"state", "run", "pods", "root"} {
			disks[dir] = n.b.Disk(n.ctx, t, "node/"+dir, 8<<20, "-N", "512")
		}
		return bed.AgentOptions{
			Kubelet:   fmt.Sprintf("containerLogMaxSize: \"%d\"\ncontainerLogMaxFiles: %d\n", logSize, logFiles),
			NodeAgent: n.cniDirs(),
		}
	})
	n.plugin() // its journal is all that there is in the state directory
	n.write("plugged", "Always", "[/podtool, sleep, forever]")
	n.ready("plugged", 20*time.Second)
	n.keep = append(n.keep, "plugged.yaml")
	n.look()
	for _, dir := range []string{"state", "run", "pods", "root"} {
		n.suffer(dir+" full", func(n *faultNode) { n.diskFull(disks[dir].Fill, disks[dir].Free) })
		n.suffer(dir+" without inodes", func(n *faultNode) {
			n.diskFull(func() error { return takeInodes(disks[dir].Dir) }, func() error { return giveInodes(disks[dir].Dir) })
		})
	}
	for _, dir := range []string{"pods", "root", "state", "run"} { // for ever, so the worst comes last
		n.Run(dir+" read-only", func(t *testing.T) {
			sub := *n
			sub.T = t
			sub.readOnly(dir, disks[dir])
		})
	}
}

// diskFull starts and stops pods, and the daemon, on a disk without room.
func (n *faultNode) diskFull(fill, free func() error) {
	n.write("old", "Always", "[/podtool, flood, 1000s]")
	n.write("leaving", "Always", "[/podtool, sleep, forever, leaving]")
	n.ready("old", 20*time.Second)
	n.ready("leaving", 20*time.Second)
	n.oneRuns("leaving")
	_ = n.b.WaitCatches(n.ctx, "podtool", int(unix.SIGTERM))
	pid := n.a.Pid
	must(n.T, fill())
	n.write("new", "Always", "[/podtool, sleep, forever]")
	must(n.T, n.a.RemoveManifest("leaving"))
	n.until("the new pod is seen", 10*time.Second, func() bool { return !n.gone("new") })
	n.until("the leaving pod's process is gone", 20*time.Second, func() bool { return len(n.podtools("leaving")) == 0 })
	n.sameDaemon(pid)
	must(n.T, n.a.Restart(n.ctx))
	n.ready("old", 10*time.Second)
	n.ready("bystander", 10*time.Second)
	must(n.T, free())
	n.ready("new", 10*time.Second)
	n.until("the leaving pod is gone", 10*time.Second, func() bool { return n.gone("leaving") })
	// An exit record that a shim could write only now, when nobody needs it, goes
	// with the next look at everything: each 30 s, and at a start.
	must(n.T, n.a.Restart(n.ctx))
}

// readOnly: the kernel makes the file system read-only after an error. Nothing
// heals that but an operator: what runs goes on, and the daemon with it.
func (n *faultNode) readOnly(dir string, d *bed.Disk) {
	pid := n.a.Pid
	must(n.T, d.Break())
	// Names of their own: what the disk keeps from being removed waits for ever.
	n.write("on-"+dir, "Always", "[/podtool, sleep, forever, "+dir+"]")
	n.await("on-"+dir, "Ready or tells why not", 10*time.Second, func(p *corev1.Pod) bool {
		return bed.Ready(p) || p.Status.Message != "" || waitingFor("CreateContainerError", "RunContainerError")(p)
	})
	must(n.T, n.a.RemoveManifest("on-"+dir))
	n.until("nothing of the new pod runs", 20*time.Second, func() bool { return len(n.podtools(dir)) == 0 })
	n.sameDaemon(pid)
	n.untouched()
	if dir != "run" { // where its lock and its socket are
		must(n.T, n.a.Restart(n.ctx))
	}
	n.ready("bystander", 10*time.Second)
	n.untouched()
}

// takeInodes makes empty files until the disk has no inode left.
func takeInodes(dir string) error {
	all := filepath.Join(dir, "inodes")
	if err := os.MkdirAll(all, 0o755); err != nil {
		return err
	}
	for i := 0; ; i++ {
		f, err := os.Create(filepath.Join(all, fmt.Sprint(i)))
		if errors.Is(err, unix.ENOSPC) {
			return nil
		}
		if err != nil {
			return err
		}
		f.Close()
	}
}

func giveInodes(dir string) error { return os.RemoveAll(filepath.Join(dir, "inodes")) }

// TestImageDiskFull: without room for images and root file systems a pod says
// so, what runs goes on, and both kinds of pod start when there is room again.
func TestImageDiskFull(t *testing.T) {
	var disk *bed.Disk
	n := newFaultNode(t, func(n *faultNode) bed.AgentOptions {
		must(t, n.b.Kill())
		disk = n.b.Disk(n.ctx, t, "root", 64<<20)
		must(t, n.b.StartAgain(n.ctx))
		return bed.AgentOptions{}
	})
	r := newRegistry(n)
	n.suffer("full", func(n *faultNode) {
		must(n.T, disk.Fill())
		n.write("new", "Always", "[/podtool, sleep, forever]")
		n.pull(r, "good")
		n.await("good", "waiting for its image", 20*time.Second, waitingFor("ErrImagePull"))
		n.await("new", "waiting", 20*time.Second, waitingFor("CreateContainerError", "RunContainerError"))
		must(n.T, n.a.Restart(n.ctx))
		n.ready("bystander", 10*time.Second)
		must(n.T, disk.Free())
		n.ready("new", 10*time.Second)
		n.ready("good", 20*time.Second)
		n.dropImages(r, "good")
	})
}
