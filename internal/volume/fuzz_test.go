package volume

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzSubPath: whatever a subPath says, what is opened lies in the volume, and
// nothing is made beside it.
func FuzzSubPath(f *testing.F) {
	for _, s := range []string{"a/b", "up/x", "root/etc", "./a//b/", "in/a", "..", "a/../../x", "/etc", "self/cwd", "loop", "a/\x00", "out/../a", "\xff/new"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sub string) {
		base := t.TempDir()
		root := filepath.Join(base, "volume")
		must(t, os.MkdirAll(filepath.Join(root, "a", "b"), 0o755))
		for name, to := range map[string]string{"up": "..", "root": "/", "in": "a", "self": "/proc/self", "loop": "loop", "out": base, "a/up": "../.."} {
			must(t, os.Symlink(to, filepath.Join(root, name)))
		}
		if checkSubPath(sub) != nil {
			return
		}
		fd, err := openSub(root, filepath.Clean(sub))
		if err == nil {
			at, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			must(t, err)
			must(t, unix.Close(fd))
			if !below(at, root) {
				t.Errorf("the subPath %q leads to %s", sub, at)
			}
		}
		if entries, err := os.ReadDir(base); err != nil || len(entries) != 1 {
			t.Errorf("the subPath %q made %v beside the volume, %v", sub, entries, err)
		}
	})
}

// FuzzPaths: the path of a file that is taken stays in its volume and never
// touches what makes the volume change at once.
func FuzzPaths(f *testing.F) {
	for _, s := range []string{"a", "dir/a", "..data", "../a", "a/..", ".", "a..b/..c", "/a", ".hidden"} {
		f.Add(s, []byte("text"))
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		files := payload{name: {data: data, mode: 0o644}}
		if files.check() != nil {
			return
		}
		base := t.TempDir()
		dir := filepath.Join(base, "volume")
		must(t, os.Mkdir(dir, 0o755))
		if err := show(t.Context(), dir, files, -1); err != nil {
			t.Fatalf("the path %q cannot be shown: %v", name, err)
		}
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(text) != string(data) {
			t.Errorf("at %q is %q, %v", name, text, err)
		}
		entries, err := os.ReadDir(dir)
		must(t, err)
		if beside, err := os.ReadDir(base); err != nil || len(beside) != 1 || len(entries) != 3 {
			t.Errorf("%q made %v, and beside the volume %v, %v", name, entries, beside, err)
		}
	})
}
