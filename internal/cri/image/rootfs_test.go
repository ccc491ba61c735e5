package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func testRootfs(n *node) {
	n.reg.push("v1", build(runtime.GOARCH, ocispec.ImageConfig{},
		map[string]string{"etc/": "", "etc/passwd": "lower", "gone": "x", "data/": "", "data/file": "content", "data/link": "->/etc/passwd"},
		map[string]string{"etc/passwd": "upper", ".wh.gone": ""},
		map[string]string{"out": "->/data", "climb": "->../../../../../../../../etc"}))
	img := n.pull(n.ref("app:v1"))
	mounts := mountTable(n)
	var kept string
	err := n.store.Rootfs(n.ctx(), img, func(dir string) error {
		kept = dir
		if b, err := os.ReadFile(dir + "/etc/passwd"); err != nil || string(b) != "upper" {
			n.Errorf("/etc/passwd: %q, %v", b, err)
		}
		if _, err := os.Lstat(dir + "/gone"); err == nil {
			n.Error("a file that an upper layer removed is there")
		}
		if err := os.WriteFile(dir+"/etc/new", nil, 0o644); err == nil {
			n.Error("the root file system is writable")
		}
		if mountTable(n) != mounts {
			n.Error("the host sees the mount")
		}
		// From any goroutine.
		done := make(chan error)
		go func() { _, err := os.ReadDir(dir + "/data"); done <- err }()
		if err := <-done; err != nil {
			n.Error(err)
		}
		volumes(n, dir)
		return nil
	})
	if err != nil {
		n.Fatal(err)
	}
	if mountTable(n) != mounts {
		n.Error("a mount is left")
	}
	if b, err := os.ReadFile(kept + "/etc/passwd"); err == nil && string(b) == "upper" {
		n.Error("the root file system can be read after its end")
	}
	// On whatever thread it starts, also the main one, the process stays where
	// it is.
	own := mountNamespaces(n)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			if err := n.store.Rootfs(n.ctx(), img, func(dir string) error { _, err := os.Stat(dir + "/etc"); return err }); err != nil {
				n.Error(err)
			}
		})
	}
	wg.Wait()
	waitFor(n, "no thread is in another mount namespace", func() bool { return slices.Equal(mountNamespaces(n), own) })
	want := errors.New("of the caller")
	if err := n.store.Rootfs(n.ctx(), img, func(string) error { return want }); !errors.Is(err, want) {
		n.Errorf("err = %v", err)
	}
	left := 0
	_ = n.client.SnapshotService("overlayfs").Walk(n.store.namespaced(n.ctx()), func(_ context.Context, i snapshotInfo) error {
		if strings.HasPrefix(i.Name, "view-") {
			left++
		}
		return nil
	})
	if left > 0 {
		n.Errorf("%d views are left", left)
	}
	// One layer is a directory: no mount at all.
	n.reg.push("v2", simple("single"))
	single := n.pull(n.ref("app:v2"))
	if err := n.store.Rootfs(n.ctx(), single, func(dir string) error { _, err := os.Stat(dir + "/app"); return err }); err != nil {
		n.Error(err)
	}
	single.ChainID = "sha256:" + "0123456789012345678901234567890123456789012345678901234567890123"
	if err := n.store.Rootfs(n.ctx(), single, func(string) error { return nil }); !IsNotFound(err) {
		n.Errorf("not unpacked: %v", err)
	}
}

// volumes is CVE-2022-23648: a VOLUME is copied from inside the image only.
func volumes(n *node, dir string) {
	to := n.TempDir()
	if err := FillVolume(dir, "/data", to); err != nil {
		n.Error(err)
	}
	if b, err := os.ReadFile(to + "/file"); err != nil || string(b) != "content" {
		n.Errorf("%q, %v", b, err)
	}
	if l, err := os.Readlink(to + "/link"); err != nil || l != "/etc/passwd" {
		n.Errorf("a link was followed: %q, %v", l, err)
	}
	link := n.TempDir()
	if err := FillVolume(dir, "/out", link); err != nil {
		n.Error(err)
	} else if _, err := os.Stat(link + "/file"); err != nil {
		n.Error("a link inside the image does not lead to its target")
	}
	for _, p := range []string{"/climb", "/../../../etc", "../../etc"} {
		escaped := n.TempDir()
		if err := FillVolume(dir, p, escaped); err != nil {
			n.Error(err)
		}
		if b, _ := os.ReadFile(escaped + "/passwd"); string(b) != "upper" {
			n.Errorf("%s leads out of the image: %.40q", p, b)
		}
	}
	if err := FillVolume(dir, "/absent", n.TempDir()); err != nil {
		n.Error(err)
	}
}

// mountNamespaces are those of all threads of this process.
func mountNamespaces(n *node) (out []string) {
	n.Helper()
	links, err := filepath.Glob("/proc/self/task/*/ns/mnt")
	if err != nil {
		n.Fatal(err)
	}
	for _, l := range links {
		if ns, err := os.Readlink(l); err == nil {
			out = union(out, ns)
		}
	}
	return out
}

func mountTable(n *node) string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		n.Fatal(err)
	}
	var keep []string
	for line := range strings.Lines(string(b)) {
		// Beds of other tests, and what these mount, come and go.
		ours := strings.Contains(line, filepath.Base(n.bed.Dir()))
		if ours || strings.Contains(line, " - overlay ") && !strings.Contains(line, "/tmp/nab/") {
			keep = append(keep, line)
		}
	}
	return strings.Join(keep, "")
}
