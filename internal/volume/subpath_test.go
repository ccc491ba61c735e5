package volume

import (
	"bytes"
	"flag"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/mkdir"
)

var swaps = flag.Int("swaps", 100000, "how many subPaths are mounted while a thread swaps what they name for links")

// testSubPath returns a pod with one volume on the disk, which its container
// mounts with the subPath, and the volume's directory.
func testSubPath(t testing.TB, v *Volumes, sub string) (*corev1.Pod, string) {
	t.Helper()
	p := testPod(t, v, "p", emptyDir("disk", corev1.EmptyDirVolumeSource{}))
	p.Spec.Containers[0].VolumeMounts[0].SubPath = sub
	must(t, v.Setup(t.Context(), p))
	return p, v.dir(p.UID, pluginEmptyDir, "disk")
}

func inode(t testing.TB, path string) [2]uint64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	return [2]uint64{st.Dev, st.Ino}
}

// TestSubPath: what it names is mounted, at kubelet's place, anew for each run of
// the container, and made with the volume's mode where there is nothing.
func TestSubPath(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	v := testVolumes(t)
	p, dir := testSubPath(t, v, "a/b")
	c := &p.Spec.Containers[0]
	target := filepath.Join(v.subPaths(p.UID), "disk", "app", "0")
	mounted := func(sub string) string {
		t.Helper()
		c.VolumeMounts[0].SubPath = sub
		mounts, err := v.Mounts(t.Context(), p, c)
		must(t, err)
		if mounts[0].HostPath != target {
			t.Fatalf("%s is mounted at %s, want %s", sub, mounts[0].HostPath, target)
		}
		if is, err := isMount(target); err != nil || !is {
			t.Fatalf("%s is no mount: %v", sub, err)
		}
		return target
	}
	if inode(t, mounted("a/b")) != inode(t, filepath.Join(dir, "a", "b")) {
		t.Error("another directory is mounted")
	}
	for _, made := range []string{"a", "a/b"} {
		if bits, _ := mode(t, filepath.Join(dir, made)); bits != 0o777 {
			t.Errorf("%s was made with mode %o, want the volume's 777", made, bits)
		}
	}
	// Links are followed within the volume, a file is as good as a directory.
	must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("text"), 0o600))
	must(t, os.Symlink("file", filepath.Join(dir, "link")))
	must(t, os.Symlink("../a/../a", filepath.Join(dir, "a", "round")))
	for sub, real := range map[string]string{"file": "file", "link": "file", "a/round/b": "a/b", "./a//b/": "a/b"} {
		if inode(t, mounted(sub)) != inode(t, filepath.Join(dir, real)) {
			t.Errorf("%s is not %s", sub, real)
		}
	}
	// Where it is gone since, the next run gets it anew and not the old one.
	old := inode(t, mounted("a/b"))
	must(t, os.Rename(filepath.Join(dir, "a", "b"), filepath.Join(dir, "a", "was")))
	if inode(t, mounted("a/b")) == old {
		t.Error("the next run got what the last one had")
	}
	// Nor does it wait for who still looks at that.
	sleep := exec.Command("sleep", "600")
	sleep.Dir = target
	must(t, sleep.Start())
	defer func() { _ = sleep.Process.Kill(); _ = sleep.Wait() }()
	mounted("a/b")
	if mounts, err := v.mountsOf(p.UID); err != nil || len(mounts) != 1 {
		t.Errorf("there are mounted %v, %v: an earlier run's mount is left", mounts, err)
	}
	must(t, v.Remove(t.Context(), p.UID))
	wantGone(t, v, p)
}

// TestSubPathOutside: no subPath leads out of its volume, and the error tells
// nothing of the node's files; the log does.
func TestSubPathOutside(t *testing.T) {
	v := testVolumes(t)
	var log bytes.Buffer
	v.log = slog.New(slog.NewTextHandler(&log, nil))
	p, dir := testSubPath(t, v, "")
	must(t, mkdir.All(filepath.Join(dir, "d"), 0o755))
	for name, to := range map[string]string{
		"root": "/", "etc": "/etc", "up": "..", "d/up": "../..", "self": "/proc/self/root", "abs": dir + "/d", "loop": "loop", "nothing": "absent/../..",
	} {
		must(t, os.Symlink(to, filepath.Join(dir, name)))
	}
	for _, sub := range []string{"root", "root/etc", "etc", "etc/passwd", "up", "up/x", "d/up", "d/up/memory", "self/etc", "abs", "loop", "loop/x", "nothing/x",
		"..", "../x", "d/../../x", "/etc", "/", "d/\x00"} {
		c := &p.Spec.Containers[0]
		c.VolumeMounts[0].SubPath = sub
		_, err := v.Mounts(t.Context(), p, c)
		if err == nil {
			t.Errorf("the subPath %q is mounted", sub)
			continue
		}
		if strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "no such file") {
			t.Errorf("the subPath %q tells %v", sub, err)
		}
	}
	if !strings.Contains(log.String(), "invalid cross-device link") {
		t.Errorf("the log does not say why: %s", log.String())
	}
	if entries, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(entries) != 1 {
		t.Errorf("beside the volume was made %v, %v", entries, err)
	}
	if mounts, err := v.mountsOf(p.UID); err != nil || len(mounts) != 0 {
		t.Errorf("there are mounted %v, %v", mounts, err)
	}
}

// TestSubPathRace: while a thread swaps directories for links to / as fast as it
// can, every subPath that is mounted is the one that was named
// (CVE-2017-1002101, CVE-2021-25741).
func TestSubPathRace(t *testing.T) {
	v := testVolumes(t)
	v.log = slog.New(slog.DiscardHandler)
	p, dir := testSubPath(t, v, "a/b/c")
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, mkdir.All(at("a/b/c"), 0o755))
	for _, link := range []struct{ name, to string }{{"evil-a", "/"}, {"evil-b", "/etc"}, {"evil-c", "/"}, {"a/evil-b", "/"}, {"a/b/evil-c", "/"}} {
		must(t, os.Symlink(link.to, at(link.name)))
	}
	good := inode(t, at("a/b/c"))
	stop := make(chan struct{})
	end := sync.OnceFunc(func() { close(stop) })
	done := make(chan int, 1)
	t.Cleanup(end) // should the test fail
	go func() {
		pairs := [][2]string{{"a", "evil-a"}, {"a/b", "a/evil-b"}, {"a/b/c", "a/b/evil-c"}}
		n := 0
		for {
			for _, pair := range pairs {
				for range 2 { // there and back
					_ = unix.Renameat2(unix.AT_FDCWD, at(pair[0]), unix.AT_FDCWD, at(pair[1]), unix.RENAME_EXCHANGE)
					n++
				}
			}
			select {
			case <-stop:
				done <- n
				return
			default:
			}
		}
	}()
	mounted, refused, begun := 0, 0, time.Now()
	for n := range *swaps {
		if *swaps == 100000 && time.Since(begun) > 20*time.Second {
			t.Logf("a slow machine: %d of %d", n, *swaps)
			break
		}
		mounts, err := v.Mounts(t.Context(), p, &p.Spec.Containers[0])
		if err != nil {
			refused++
			continue
		}
		mounted++
		if got := inode(t, mounts[0].HostPath); got != good {
			t.Fatalf("the mount is of %v, want %v", got, good)
		}
	}
	end()
	t.Logf("%d mounted, %d refused, during %d swaps, in %v", mounted, refused, <-done, time.Since(begun))
	if mounted == 0 || refused == 0 {
		t.Error("the race was none")
	}
	must(t, v.Remove(t.Context(), p.UID))
	wantGone(t, v, p)
}

func BenchmarkSubPath(b *testing.B) {
	v := testVolumes(b)
	p, _ := testSubPath(b, v, "a/b")
	for b.Loop() {
		_, err := v.Mounts(b.Context(), p, &p.Spec.Containers[0])
		must(b, err)
	}
}
