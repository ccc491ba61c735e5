package image

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// testPreload: archives of the directory are there from the start and when they
// appear, whatever else lies beside them; they are pinned and read once.
func testPreload(n *node) {
	dir := filepath.Join(n.TempDir(), "images")
	put := func(name string, text []byte) {
		n.Helper()
		tmp := filepath.Join(dir, ".tmp")
		if err := os.WriteFile(tmp, text, 0o600); err != nil {
			n.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
			n.Fatal(err)
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		n.Fatal(err)
	}
	put("a.tar", ociLayout(map[string]built{"localhost/pre/a:v1": simple("pre a")}))
	put("bad.tar", []byte("no archive"))
	put("notes.txt", []byte("no archive"))
	if err := unix.Mkfifo(filepath.Join(dir, "pipe.tar"), 0o600); err != nil {
		n.Fatal(err)
	}
	run := func(m *node) (changes *atomic.Int32, await func(string) Image, stop func()) {
		ctx, cancel := context.WithCancel(m.Context())
		changes = &atomic.Int32{}
		come, done := make(chan struct{}, 64), make(chan error, 1)
		go func() { done <- m.store.Preload(ctx, dir, func() { changes.Add(1); come <- struct{}{} }) }()
		await = func(ref string) Image { // which is there before it is unpacked and labelled
			m.Helper()
			for {
				select {
				case <-come:
				case <-time.After(30 * time.Second):
					m.Fatalf("%s never came", ref)
				}
				if img, err := m.store.Get(m.ctx(), ref); err == nil {
					return img
				}
			}
		}
		return changes, await, func() {
			cancel()
			if err := <-done; err != nil {
				m.Error(err)
			}
		}
	}
	_, await, stop := run(n)
	if img := await("localhost/pre/a:v1"); !img.Unpacked || img.Access.Pulled {
		n.Errorf("got %+v", img)
	}
	put("b.tar", dockerSave("pre/b:v1", simple("pre b")))
	await("docker.io/pre/b:v1")
	put("bad.tar", dockerSave("pre/mended:v1", simple("pre c")))
	await("docker.io/pre/mended:v1")
	stop()
	n.pull(n.pushed("unpinned"))
	if _, err := n.store.Prune(n.ctx(), func(i Image) bool { return i.Pinned }); err != nil {
		n.Fatal(err)
	}
	for _, ref := range []string{"localhost/pre/a:v1", "docker.io/pre/b:v1", "docker.io/pre/mended:v1"} {
		if img, err := n.store.Get(n.ctx(), ref); err != nil || !img.Pinned {
			n.Errorf("%s is not pinned: %+v, %v", ref, img, err)
		}
	}
	if gone, err := n.store.Prune(n.ctx(), func(Image) bool { return false }); err != nil || len(gone) != 0 {
		n.Errorf("pruned %v, %v", gone, err)
	}
	// Another daemon reads only what is new, or what is gone.
	if err := n.store.Remove(n.ctx(), "docker.io/pre/b:v1"); err != nil {
		n.Fatal(err)
	}
	changes, await, stop := run(n.with(n.T, nil))
	await("docker.io/pre/b:v1")
	put("c.tar", dockerSave("pre/c:v1", simple("pre d")))
	await("docker.io/pre/c:v1")
	stop()
	if got := changes.Load(); got != 2 {
		n.Errorf("%d archives were read again, want b.tar and c.tar", got)
	}
	for _, ref := range []string{"localhost/pre/a:v1", "docker.io/pre/b:v1", "docker.io/pre/mended:v1", "docker.io/pre/c:v1"} {
		if err := n.store.Remove(n.ctx(), ref); err != nil {
			n.Error(err)
		}
	}
}

// pushed puts an image of that tag into the registry and names it.
func (n *node) pushed(tag string) string {
	n.Helper()
	n.reg.push(tag, simple(tag))
	return n.ref("app:" + tag)
}
