package volume

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/mkdir"
)

// TestRemoveNeverCrosses: links in a volume lead nowhere, and what is mounted in
// one is unmounted, not deleted.
func TestRemoveNeverCrosses(t *testing.T) {
	v := testVolumes(t)
	p := testPod(t, v, "p", emptyDir("disk", corev1.EmptyDirVolumeSource{}))
	must(t, v.Setup(t.Context(), p))
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "keep"), nil, 0o600))
	dir := v.dir(p.UID, pluginEmptyDir, "disk")
	must(t, os.Symlink(outside, filepath.Join(dir, "link")))
	must(t, mkdir.All(filepath.Join(dir, "a", "b"), 0o755))
	must(t, unix.Mount(outside, filepath.Join(dir, "a", "b"), "", unix.MS_BIND, ""))
	must(t, v.Remove(t.Context(), p.UID))
	wantGone(t, v, p)
	if _, err := os.Stat(filepath.Join(outside, "keep")); err != nil {
		t.Errorf("what is not the pod's was deleted: %v", err)
	}
}

// TestRemoveOfALink: where a directory of the volumes is a link, the link goes
// and nothing that it leads to.
func TestRemoveOfALink(t *testing.T) {
	v := testVolumes(t)
	outside := t.TempDir()
	must(t, mkdir.All(filepath.Join(outside, string(pluginEmptyDir), "of-another", "data"), 0o755))
	must(t, mkdir.All(filepath.Join(outside, "empty"), 0o755))
	before := inodes(t, outside)
	for _, link := range []string{"volumes", "volume-subpaths", "volumes/" + string(pluginEmptyDir), "volumes/" + string(pluginEmptyDir) + "/v"} {
		p := testPod(t, v, "p")
		at := filepath.Join(v.pods(), string(p.UID), link)
		must(t, mkdir.All(filepath.Dir(at), 0o750))
		must(t, os.Symlink(outside, at))
		must(t, v.Remove(t.Context(), p.UID))
		wantGone(t, v, p)
		if !maps.Equal(before, inodes(t, outside)) {
			t.Fatalf("what %s led to was changed", link)
		}
	}
}

// TestRemoveNamesTheHolder: who keeps a volume busy is named, nothing is deleted
// meanwhile, and afterwards all goes.
func TestRemoveNamesTheHolder(t *testing.T) {
	v := testVolumes(t)
	p := testPod(t, v, "p", emptyDir("disk", corev1.EmptyDirVolumeSource{}),
		emptyDir("memory", corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}))
	must(t, v.Setup(t.Context(), p))
	kept := filepath.Join(v.dir(p.UID, pluginEmptyDir, "disk"), "kept")
	must(t, os.WriteFile(kept, nil, 0o600))
	sleep := exec.Command("sleep", "600")
	sleep.Dir = v.dir(p.UID, pluginEmptyDir, "memory")
	must(t, sleep.Start())
	defer func() { _ = sleep.Process.Kill(); _ = sleep.Wait() }()
	err := v.Remove(t.Context(), p.UID)
	if want := fmt.Sprintf("pid %d (sleep)", sleep.Process.Pid); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a volume in use is told as %v, want %s", err, want)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("something was deleted before all was unmounted: %v", err)
	}
	must(t, sleep.Process.Kill())
	_ = sleep.Wait()
	must(t, v.Remove(t.Context(), p.UID))
	wantGone(t, v, p)
}

// TestForeignVolumesStay: volumes that another program made are named and left,
// at a pod's end as well as at a sweep.
func TestForeignVolumesStay(t *testing.T) {
	v := testVolumes(t)
	p := testPod(t, v, "p", emptyDir("disk", corev1.EmptyDirVolumeSource{}))
	must(t, v.Setup(t.Context(), p))
	csi := v.dir(p.UID, "kubernetes.io~csi", "data")
	must(t, mkdir.All(csi, 0o750))
	must(t, unix.Mount("tmpfs", csi, "tmpfs", 0, "size=64k"))
	keep := filepath.Join(csi, "keep")
	must(t, os.WriteFile(keep, nil, 0o600))
	for what, remove := range map[string]func() error{
		"remove": func() error { return v.Remove(t.Context(), p.UID) },
		"sweep":  func() error { return v.Stray(t.Context(), func(types.UID) bool { return false }) },
	} {
		if err := remove(); err == nil || !strings.Contains(err.Error(), "kubernetes.io~csi/data") {
			t.Errorf("%s: a foreign mount is told as %v", what, err)
		}
		if _, err := os.Stat(keep); err != nil {
			t.Fatalf("%s: what another program mounted is gone: %v", what, err)
		}
	}
	must(t, unix.Unmount(csi, 0))
	if err := v.Remove(t.Context(), p.UID); err == nil || !strings.Contains(err.Error(), "kubernetes.io~csi") {
		t.Errorf("a foreign directory is told as %v", err)
	}
	must(t, os.RemoveAll(filepath.Dir(csi)))
	must(t, v.Remove(t.Context(), p.UID))
	wantGone(t, v, p)
}

// TestStray removes the volumes of pods that are gone, and only those.
func TestStray(t *testing.T) {
	v := testVolumes(t)
	p := testPod(t, v, "p", emptyDir("memory", corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}))
	must(t, v.Setup(t.Context(), p))
	gone := p.DeepCopy()
	gone.UID = "uid-gone"
	must(t, v.Setup(t.Context(), gone))
	must(t, v.Stray(t.Context(), func(uid types.UID) bool { return uid == p.UID }))
	wantGone(t, v, gone)
	if mounts, err := v.mountsOf(p.UID); err != nil || len(mounts) != 1 {
		t.Errorf("of a pod that stays there are mounted %v, %v", mounts, err)
	}
	must(t, v.Remove(t.Context(), p.UID))
}
