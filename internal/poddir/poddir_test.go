package poddir

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/pod"
	"nodeagent/internal/pod/etc"
)

func testDirs(t *testing.T) (*Dirs, *corev1.Pod) {
	t.Helper()
	dir := t.TempDir()
	d, err := New(Config{
		RootDir: filepath.Join(dir, "root"), PodLogsDir: filepath.Join(dir, "pods"), ContainersLogsDir: filepath.Join(dir, "containers"),
		DNS: func() etc.DNS { return etc.DNS{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "uid"}}
	_, err = d.Prepare(p)
	must(t, err)
	return d, p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestModes: collectors of logs that are not root get in, whatever the umask.
func TestModes(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	d, p := testDirs(t)
	message, err := d.TerminationLog(p, "c", 0)
	must(t, err)
	must(t, d.LinkLog(p, "c", "id", "/log"))
	for path, want := range map[string]os.FileMode{
		d.cfg.PodLogsDir: 0o755, d.LogDirectory(p.UID, p.Namespace, p.Name): 0o755, d.cfg.ContainersLogsDir: 0o755,
		d.pod(p.UID): 0o750, filepath.Dir(message): 0o750, message: 0o666,
	} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
}

func TestNextAttempt(t *testing.T) {
	d, p := testDirs(t)
	dir := filepath.Join(d.LogDirectory(p.UID, p.Namespace, p.Name), "c")
	for _, step := range []struct {
		file string
		want uint32
	}{{"", 0}, {"0.log", 1}, {"3.log", 4}, {"2.log", 4}, {"nonsense.log", 4}, {"9.log.d", 4}, {"2147483647.log", 0}} {
		if step.file != "" {
			must(t, os.MkdirAll(dir, 0o755))
			must(t, os.WriteFile(filepath.Join(dir, step.file), nil, 0o644))
		}
		if got := d.NextAttempt(p.UID, p.Namespace, p.Name, "c"); got != step.want {
			t.Errorf("with %q the next run is %d, want %d", step.file, got, step.want)
		}
	}
}

// TestTerminationMessage: whatever a container puts in the place of its message,
// the daemon neither blocks nor is led elsewhere.
func TestTerminationMessage(t *testing.T) {
	d, p := testDirs(t)
	c := &corev1.Container{Name: "c"}
	file, err := d.TerminationLog(p, "c", 0)
	must(t, err)
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o666 {
		t.Errorf("the message's file is %v, %v, want one that anybody may write", st.Mode(), err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	for name, step := range map[string]struct {
		make func() error
		want string
	}{
		"text":      {func() error { return os.WriteFile(file, []byte("bye"), 0o644) }, "bye"},
		"long":      {func() error { return os.WriteFile(file, []byte(strings.Repeat("x", 5000)+"end"), 0o644) }, strings.Repeat("x", 4093) + "end"},
		"no text":   {func() error { return os.WriteFile(file, []byte("\xff\xfe"), 0o644) }, "\ufffd"},
		"link":      {func() error { return os.Symlink(secret, file) }, ""},
		"pipe":      {func() error { return unix.Mkfifo(file, 0o666) }, ""},
		"directory": {func() error { return os.Mkdir(file, 0o777) }, ""},
	} {
		must(t, os.RemoveAll(file))
		must(t, step.make())
		if got := d.TerminationMessage(p, c, pod.Container{Name: "c"}); got != step.want {
			t.Errorf("%s: the message is %q, want %q", name, got, step.want)
		}
	}
}

// TestMessagesAreForgotten: those of the last two runs are kept.
func TestMessagesAreForgotten(t *testing.T) {
	d, p := testDirs(t)
	var last string
	for attempt := range uint32(5) {
		var err error
		last, err = d.TerminationLog(p, "c", attempt)
		must(t, err)
	}
	entries, err := os.ReadDir(filepath.Dir(last))
	must(t, err)
	if len(entries) != 2 || entries[0].Name() != "3" || entries[1].Name() != "4" {
		t.Errorf("after five runs there are the messages %v, want those of 3 and 4", entries)
	}
}

// TestRemove takes the pod's directories and nothing that links lead to.
func TestRemove(t *testing.T) {
	d, p := testDirs(t)
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "keep"), nil, 0o600))
	must(t, os.Symlink(outside, filepath.Join(d.pod(p.UID), "out")))
	must(t, os.Symlink(outside, filepath.Join(d.LogDirectory(p.UID, p.Namespace, p.Name), "out")))
	must(t, d.LinkLog(p, "c", "id", filepath.Join(d.LogDirectory(p.UID, p.Namespace, p.Name), "c", "0.log")))
	must(t, os.Symlink("/elsewhere/0.log", filepath.Join(d.cfg.ContainersLogsDir, "p_ns_c-other.log")))
	for range 2 { // the second finds nothing to do
		must(t, d.Remove(t.Context(), p.UID, p.Namespace, p.Name))
	}
	for _, gone := range []string{d.pod(p.UID), d.LogDirectory(p.UID, p.Namespace, p.Name), filepath.Join(d.cfg.ContainersLogsDir, "p_ns_c-id.log")} {
		if _, err := os.Lstat(gone); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", gone, err)
		}
	}
	for _, kept := range []string{filepath.Join(outside, "keep"), filepath.Join(d.cfg.ContainersLogsDir, "p_ns_c-other.log")} {
		if _, err := os.Lstat(kept); err != nil {
			t.Errorf("what is not the pod's was removed: %v", err)
		}
	}
	for _, name := range []string{"..", "a/b", "", "."} {
		if err := d.Remove(t.Context(), types.UID(name), "ns", "p"); err == nil {
			t.Errorf("the UID %q is taken for a directory's name", name)
		}
	}
}

// TestRemoveLeavesVolumes: while a volume is left, so is the pod's directory.
func TestRemoveLeavesVolumes(t *testing.T) {
	d, p := testDirs(t)
	kept := filepath.Join(d.pod(p.UID), "volumes", "kubernetes.io~csi", "data")
	must(t, os.MkdirAll(kept, 0o750))
	for _, remove := range []func() error{
		func() error { return d.Remove(t.Context(), p.UID, p.Namespace, p.Name) },
		func() error { return d.Stray(t.Context(), func(types.UID) bool { return false }) },
	} {
		if err := remove(); err == nil || !strings.Contains(err.Error(), "volumes are not cleaned up") {
			t.Errorf("a volume that is left is told as %v", err)
		}
		if _, err := os.Stat(kept); err != nil {
			t.Fatalf("a volume was removed with the pod's directory: %v", err)
		}
	}
	must(t, os.RemoveAll(filepath.Join(d.pod(p.UID), "volumes")))
	must(t, d.Remove(t.Context(), p.UID, p.Namespace, p.Name))
}

func TestStray(t *testing.T) {
	d, p := testDirs(t)
	other := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "q", Namespace: "ns", UID: "other"}}
	_, err := d.Prepare(other)
	must(t, err)
	must(t, d.Stray(t.Context(), func(uid types.UID) bool { return uid == p.UID }))
	for path, want := range map[string]bool{
		d.pod(p.UID): true, d.LogDirectory(p.UID, "ns", "p"): true,
		d.pod(other.UID): false, d.LogDirectory(other.UID, "ns", "q"): false,
	} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", path, err == nil, want)
		}
	}
}
