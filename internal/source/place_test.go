package source

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/test/need"
)

func TestDirectoryMissingAtStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet", "there")
	f := start(t, dir, nil)
	if s := f.last; !s.Synced || s.Trusted || len(s.Pods) > 0 || len(s.Problems) != 1 || s.Problems[0].File != dir {
		t.Fatalf("got %+v", s)
	}
	do(t, os.MkdirAll(dir, 0o700))
	f.until("trust", func(s Snapshot) bool { return s.Trusted && len(s.Problems) == 0 })
	f.write("a.yaml", manifest("a"))
	f.untilPods("a")
}

// A directory that went away says nothing about its pods.
func TestDirectoryGone(t *testing.T) {
	for name, away := range map[string]func(dir string) error{
		"moved":   func(dir string) error { return os.Rename(dir, dir+".old") },
		"deleted": func(dir string) error { return os.RemoveAll(dir) },
		"another kind": func(dir string) error {
			if err := os.Rename(dir, dir+".old"); err != nil {
				return err
			}
			return unix.Mkfifo(dir, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "manifests")
			do(t, os.Mkdir(dir, 0o700))
			f := startPatient(t, dir)
			f.write("a.yaml", manifest("a"))
			f.untilPods("a")
			f.keeps("a")
			for range 3 {
				do(t, away(dir))
				f.until("a problem", func(s Snapshot) bool { return len(s.Problems) > 0 })
				do(t, os.RemoveAll(dir))
				do(t, os.RemoveAll(dir+".new"))
				do(t, os.RemoveAll(dir+".old"))
				do(t, os.Mkdir(dir+".new", 0o700))
				put(t, filepath.Join(dir+".new", "a.yaml"), manifest("a"))
				do(t, os.Rename(dir+".new", dir))
				f.until("no problem", func(s Snapshot) bool { return len(s.Problems) == 0 })
				f.settle()
			}
		})
	}
}

// Another directory in the place of the old one: what it has is read at once,
// what it lacks ends when a second look finds it missing too.
func TestDirectoryReplaced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "manifests")
	do(t, os.Mkdir(dir, 0o700))
	do(t, os.Mkdir(dir+".new", 0o700))
	f := start(t, dir, func(c *Config) { c.Rescan = 300 * time.Millisecond })
	f.write("a.yaml", manifest("a"))
	f.write("b.yaml", manifest("b"))
	f.untilPods("a", "b")
	put(t, filepath.Join(dir+".new", "a.yaml"), manifest("a"))
	put(t, filepath.Join(dir+".new", "c.yaml"), manifest("c"))
	f.keeps("a")
	do(t, os.Rename(dir, dir+".old"))
	do(t, os.Rename(dir+".new", dir))
	f.until("c", func(s Snapshot) bool { return slices.Contains(podNames(s), "c") })
	f.untilPods("a", "c")
}

func TestLinkToDirectorySwapped(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"v1", "v2"} {
		do(t, os.Mkdir(filepath.Join(root, name), 0o700))
		put(t, filepath.Join(root, name, "a.yaml"), manifest("a", "    args: ["+name+"]\n"))
	}
	link := filepath.Join(root, "manifests")
	do(t, os.Symlink("v1", link))
	f := start(t, link, nil)
	f.untilPods("a")
	do(t, os.Symlink("v2", link+".new"))
	do(t, os.Rename(link+".new", link))
	f.until("v2", func(s Snapshot) bool { return len(s.Pods) == 1 && s.Pods[0].Spec.Containers[0].Args[0] == "v2" })
}

// The directory behind a link is told of by itself alone.
func TestLinkedDirectoryMoved(t *testing.T) {
	root := t.TempDir()
	real, link := filepath.Join(root, "far", "real"), filepath.Join(root, "manifests")
	do(t, os.MkdirAll(real, 0o700))
	do(t, os.Symlink("far/real", link))
	f := start(t, link, nil)
	f.write("a.yaml", manifest("a"))
	f.untilPods("a")
	f.keeps("a")
	do(t, os.Rename(real, real+".old"))
	f.until("a problem", func(s Snapshot) bool { return len(s.Problems) > 0 })
}

func TestSingleFile(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "pod.conf")
	put(t, path, manifest("a"))
	put(t, filepath.Join(root, "other.yaml"), manifest("other"))
	f := start(t, path, nil)
	f.untilPods("a")
	put(t, path, manifest("b"))
	f.untilPods("b")
	put(t, path, "broken")
	f.untilProblem("no Kubernetes object")
	f.untilPods("b")
	do(t, os.Remove(path))
	f.untilPods()
	put(t, path, manifest("c"))
	f.untilPods("c")
}

func TestSingleFileToCome(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pod.yaml")
	f := start(t, path, nil)
	if !f.last.Trusted || len(f.last.Problems) > 0 {
		t.Fatalf("got %+v", f.last)
	}
	put(t, path, manifest("a"))
	f.untilPods("a")
}

// oddFiles make something at path that is no manifest, and say what is told.
var oddFiles = map[string]struct {
	make func(path string) error
	want string
}{
	"pipe":            {func(p string) error { return unix.Mkfifo(p, 0o600) }, "a named pipe"},
	"socket":          {makeSocket, "a socket"},
	"directory":       {func(p string) error { return os.Mkdir(p, 0o700) }, "a directory"},
	"device":          {func(p string) error { return os.Symlink("/dev/null", p) }, "a device"},
	"link to a pipe":  {func(p string) error { _ = unix.Mkfifo(p+".fifo~", 0o600); return os.Symlink(p+".fifo~", p) }, "a named pipe"},
	"dangling link":   {func(p string) error { return os.Symlink("/nowhere/at/all", p) }, "link points to nothing"},
	"looping link":    {func(p string) error { return os.Symlink(filepath.Base(p), p) }, "link points to itself"},
	"unreadable file": {func(p string) error { return os.Symlink("/proc/self/mem", p) }, "read file"},
	"sparse file": {func(p string) error {
		f, err := os.Create(p)
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Truncate(1 << 40)
	}, "the limit is"},
}

func makeSocket(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	// The path of a socket is short; the test's directory may not be.
	return unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join("/proc/self/fd", strconv.Itoa(dir), filepath.Base(path))})
}

// What can be no manifest is told of, stops nothing, and ends no pod where it
// takes a manifest's place.
func TestOddFiles(t *testing.T) {
	for name, odd := range oddFiles {
		t.Run(name, func(t *testing.T) {
			f := startPatient(t, t.TempDir())
			f.write("a.yaml", manifest("a"))
			f.write("b.yaml", manifest("b"))
			f.untilPods("a", "b")
			f.keeps("a", "b")
			do(t, odd.make(f.path("odd.yaml")))
			if p := f.untilProblem(odd.want); p.File != f.path("odd.yaml") {
				t.Errorf("problem %+v", p)
			}
			f.settle()
			do(t, os.RemoveAll(f.path("odd.yaml")))
			f.until("no problem", func(s Snapshot) bool { return len(s.Problems) == 0 })

			f.remove("a.yaml")
			do(t, odd.make(f.path("a.yaml")))
			f.untilProblem(odd.want)
			f.settle()
			do(t, os.RemoveAll(f.path("a.yaml")))
			f.write("a.yaml", manifest("a"))
			f.until("no problem", func(s Snapshot) bool { return len(s.Problems) == 0 })
			f.settle()
		})
	}
}

// A source that starts beside odd files trusts its list only if none of them can
// be a manifest that is not to be read right now.
func TestOddFilesAtStart(t *testing.T) {
	for name, odd := range oddFiles {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			do(t, odd.make(filepath.Join(dir, "odd.yaml")))
			put(t, filepath.Join(dir, "b.yaml"), manifest("b"))
			f := start(t, dir, nil)
			f.untilPods("b")
			if want := strings.HasPrefix(odd.want, "a "); f.last.Trusted != want || len(f.last.Problems) != 1 {
				t.Errorf("trusted is %t, problems %+v", f.last.Trusted, f.last.Problems)
			}
			do(t, os.RemoveAll(f.path("odd.yaml")))
			f.until("trust", func(s Snapshot) bool { return s.Trusted && len(s.Problems) == 0 })
		})
	}
}

func TestBrokenFileAtStart(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "a.yaml"), "broken")
	put(t, filepath.Join(dir, "b.yaml"), manifest("b"))
	f := start(t, dir, nil)
	f.untilPods("b")
	if f.last.Trusted || !f.last.Synced {
		t.Fatal("a list without the pods of a broken file is trusted")
	}
	f.write("a.yaml", manifest("a"))
	if s := f.untilPods("a", "b"); !s.Trusted {
		t.Fatal("not trusted")
	}
	f.write("c.yaml", "broken")
	f.untilProblem("no Kubernetes object")
	if !f.last.Trusted {
		t.Fatal("a file that came broken took the trust away")
	}
}

// Regular files behind links are manifests, also as a ConfigMap volume has them.
func TestLinks(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	version := func(v string) {
		do(t, os.Mkdir(f.path(".."+v), 0o700))
		f.write(".."+v+"/a.yaml", manifest("a", "    args: ["+v+"]\n"))
		do(t, os.Symlink(".."+v, f.path("..data_tmp")))
		f.rename("..data_tmp", "..data")
	}
	has := func(v string) func(Snapshot) bool {
		return func(s Snapshot) bool { return len(s.Pods) == 1 && s.Pods[0].Spec.Containers[0].Args[0] == v }
	}
	version("v1")
	do(t, os.Symlink("..data/a.yaml", f.path("a.yaml")))
	f.until("v1", has("v1"))
	version("v2")
	f.until("v2", has("v2"))
	f.keeps("a")
	f.remove("..data") // dangling now
	f.untilProblem("link points to nothing")
	f.settle()
	f.always = nil
	version("v3")
	f.until("v3", has("v3"))
	f.remove("a.yaml")
	f.untilPods()
}

// What editors and package managers leave is no manifest and no news; what
// kubelet would have taken is told of.
func TestNamesThatAreNoManifests(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".a.yaml", "a.yaml~", "a.yaml.bak", ".a.yaml.swp", "#a.yaml#", "a.yaml.dpkg-old", "4913"} {
		put(t, filepath.Join(dir, name), manifest("a"))
	}
	do(t, os.Mkdir(filepath.Join(dir, "subdir"), 0o700))
	put(t, filepath.Join(dir, "subdir", "a.yaml"), manifest("a"))
	f := start(t, dir, nil)
	if len(f.last.Pods) > 0 || len(f.last.Problems) > 0 || !f.last.Trusted {
		t.Fatalf("got %v %v", f.pods(), f.last.Problems)
	}
	f.write("kube-proxy.manifest", manifest("a"))
	if p := f.untilProblem("only names that end in"); p.File != f.path("kube-proxy.manifest") {
		t.Errorf("problem %+v", p)
	}
	f.remove("kube-proxy.manifest")
	f.until("no problem", func(s Snapshot) bool { return len(s.Problems) == 0 })
	f.settle()
	if len(f.last.Pods) > 0 {
		t.Fatal(f.pods())
	}
}

func TestUnreadableDirectory(t *testing.T) {
	need.Have(t, need.Root) // another user is needed, to whom permissions matter
	dir := t.TempDir()
	put(t, filepath.Join(dir, "a.yaml"), manifest("a"))
	var last Snapshot
	m := testSource(t, dir, func(c *Config) { c.Emit = func(s Snapshot) { last = s } })
	m.scan(nil)
	m.emit()
	do(t, os.Chmod(dir, 0o700))
	runtime.LockOSThread() // the user for files belongs to the thread
	do(t, unix.Setfsuid(65534))
	for range 3 {
		m.scan(nil)
	}
	for name := range m.files {
		m.look(name, signDeleted)
	}
	do(t, unix.Setfsuid(0))
	runtime.UnlockOSThread()
	m.emit()
	if len(last.Pods) != 1 || len(last.Problems) == 0 || !strings.Contains(last.Problems[0].Message, "permission denied") {
		t.Fatalf("got %v %+v", podNames(last), last.Problems)
	}
	m.scan(nil)
	m.emit()
	if len(last.Pods) != 1 || len(last.Problems) > 0 {
		t.Fatalf("got %v %+v", podNames(last), last.Problems)
	}
}
