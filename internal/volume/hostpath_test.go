package volume

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// TestHostPath: what each type takes, makes and refuses, in kubelet's words.
func TestHostPath(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	v := testVolumes(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.Mkdir(at("dir"), 0o700))
	must(t, os.WriteFile(at("file"), nil, 0o600))
	l, err := net.Listen("unix", at("socket"))
	must(t, err)
	defer l.Close()
	must(t, unix.Mknod(at("char"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	must(t, unix.Mknod(at("block"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 99))))
	must(t, os.Symlink("dir", at("link")))
	const (
		none       = corev1.HostPathUnset
		dirs       = corev1.HostPathDirectory
		dirMade    = corev1.HostPathDirectoryOrCreate
		files      = corev1.HostPathFile
		fileMade   = corev1.HostPathFileOrCreate
		sockets    = corev1.HostPathSocket
		chars      = corev1.HostPathCharDev
		blocks     = corev1.HostPathBlockDev
		notA, made = "hostPath type check failed: ", ""
	)
	for _, x := range []struct {
		kind corev1.HostPathType
		path string
		want string // of the error
		mode uint32 // afterwards
	}{
		{none, "file", "", 0o600}, {none, "made/deep", made, 0o755},
		{dirs, "dir", "", 0o700}, {dirs, "link", "", 0o700}, {dirs, "file", notA + at("file") + " is not a directory", 0o600}, {dirs, "absent", "absent is not a directory", 0},
		{dirMade, "dir", "", 0o700}, {dirMade, "made2/deep", made, 0o755}, {dirMade, "file", "is not a directory", 0o600},
		{files, "file", "", 0o600}, {files, "dir", "dir is not a file", 0o700}, {files, "absent", "absent is not a file", 0}, {files, "char", "is not a file", 0o600},
		{fileMade, "file", "", 0o600}, {fileMade, "made3", made, 0o644}, {fileMade, "dir", "is not a file", 0o700}, {fileMade, "absent/file", "no such file", 0},
		{sockets, "socket", "", 0o700}, {sockets, "file", "is not a socket file", 0o600},
		{chars, "char", "", 0o600}, {chars, "block", "is not a character device", 0o600},
		{blocks, "block", "", 0o600}, {blocks, "char", "is not a block device", 0o600},
	} {
		name := string(x.kind) + " " + x.path
		p := testPod(t, v, "p", corev1.Volume{Name: "h", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: at(x.path), Type: &x.kind}}})
		err := v.Setup(t.Context(), p)
		if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%s: %v, want %q", name, err, x.want)
		}
		if x.want == "" {
			mounts, err := v.Mounts(t.Context(), p, &p.Spec.Containers[0])
			must(t, err)
			if real, _ := filepath.EvalSymlinks(at(x.path)); mounts[0].HostPath != real || mounts[0].Readonly {
				t.Errorf("%s: the mount is %v", name, mounts[0])
			}
		}
		var st unix.Stat_t
		if err := unix.Stat(at(x.path), &st); x.mode != 0 && (err != nil || x.path != "socket" && st.Mode&0o7777 != x.mode) || x.mode == 0 && err == nil {
			t.Errorf("%s: it has mode %o, %v, want %o", name, st.Mode&0o7777, err, x.mode)
		}
	}
}

// TestDeadServer: a look that hangs ends with its context, holds up nobody at
// another path, and is not repeated while it hangs.
func TestDeadServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l looks
		var begun atomic.Int32
		dead := make(chan struct{})
		hang := func() error { begun.Add(1); <-dead; return nil }
		for _, want := range []string{"does not answer", "an earlier look at it hangs"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := l.do(ctx, "/nfs", hang); err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v, want %s", err, want)
			}
			cancel()
		}
		if err := l.do(t.Context(), "/other", func() error { return nil }); err != nil {
			t.Error(err)
		}
		if begun.Load() != 1 {
			t.Errorf("%d looks were begun", begun.Load())
		}
		close(dead)
		synctest.Wait()
		if err := l.do(t.Context(), "/nfs", func() error { return nil }); err != nil {
			t.Error(err)
		}
	})
}
