package volume

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/mkdir"
)

// claims has one volume for every claim.
type claims struct{ volume *corev1.PersistentVolume }

func (c claims) Claim(*corev1.Pod, *corev1.Volume) (*corev1.PersistentVolume, error) {
	return c.volume, nil
}

func claimVolume(name string, readOnly bool) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim", ReadOnly: readOnly}}}
}

func localVolume(path string) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{}
	v.Name = "local-pv-1"
	v.Spec.Local = &corev1.LocalVolumeSource{Path: path}
	return v
}

// TestLocal: a local volume is mounted where kubelet mounts it, is given to the
// pod's group once, and outlives the pod with all that is in it.
func TestLocal(t *testing.T) {
	v, disk, outside := testVolumes(t), t.TempDir(), t.TempDir()
	must(t, mkdir.All(filepath.Join(disk, "d"), 0o700))
	must(t, os.WriteFile(filepath.Join(disk, "d/f"), []byte("data"), 0o600))
	must(t, os.WriteFile(filepath.Join(outside, "canary"), nil, 0o600))
	must(t, os.Symlink(outside, filepath.Join(disk, "link")))
	must(t, os.Symlink(filepath.Join(outside, "canary"), filepath.Join(disk, "d/link")))
	v.cfg.Claims = claims{localVolume(disk)}
	p := testPod(t, v, "p", claimVolume("data", false))
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: new(int64(5000))}
	must(t, v.Setup(t.Context(), p))
	mounts, err := v.Mounts(t.Context(), p, &p.Spec.Containers[0])
	must(t, err)
	dir := filepath.Join(v.volumes(p.UID), "kubernetes.io~local-volume/local-pv-1")
	if mounts[0].HostPath != dir || mounts[0].Readonly {
		t.Errorf("the container gets %v, want %s", mounts[0], dir)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "d/f")); err != nil || string(text) != "data" {
		t.Errorf("the volume shows %q, %v", text, err)
	}
	for path, want := range map[string]uint32{disk: 0o2770, disk + "/d": 0o2770, disk + "/d/f": 0o660} {
		bits, gid := mode(t, path)
		if bits&0o7770 != want || gid != 5000 {
			t.Errorf("%s has mode %o and group %d, want %o and 5000", path, bits, gid, want)
		}
	}
	if bits, gid := mode(t, filepath.Join(outside, "canary")); bits != 0o600 || gid != 0 {
		t.Errorf("what a link leads to has mode %o and group %d", bits, gid)
	}
	if _, gid := mode(t, filepath.Join(disk, "link")); gid != 5000 {
		t.Errorf("a link has group %d", gid)
	}
	// A file that the pod gave itself keeps its mode at the next setup, and at
	// that of another pod beside it.
	must(t, os.Chmod(filepath.Join(dir, "d/f"), 0o600))
	must(t, v.Setup(t.Context(), p))
	q := testPod(t, v, "q", claimVolume("data", false))
	q.UID, q.Spec.SecurityContext = "uid-q", p.Spec.SecurityContext
	must(t, v.Setup(t.Context(), q))
	q.Spec.Volumes[0].PersistentVolumeClaim.ReadOnly = true
	if mounts, err = v.Mounts(t.Context(), q, &q.Spec.Containers[0]); err != nil || !mounts[0].Readonly {
		t.Errorf("a claim that is only read is mounted as %v, %v", mounts, err)
	}
	if bits, _ := mode(t, filepath.Join(disk, "d/f")); bits != 0o600 {
		t.Errorf("the file's mode became %o", bits)
	}
	must(t, v.Remove(t.Context(), p.UID))
	must(t, v.Remove(t.Context(), q.UID))
	wantGone(t, v, p)
	if text, err := os.ReadFile(filepath.Join(disk, "d/f")); err != nil || string(text) != "data" {
		t.Errorf("after the pods the data is %q, %v", text, err)
	}

	// Where the root is the group's already, OnRootMismatch leaves the rest.
	p.Spec.SecurityContext.FSGroupChangePolicy = new(corev1.FSGroupChangeOnRootMismatch)
	must(t, v.Setup(t.Context(), p))
	if bits, _ := mode(t, filepath.Join(disk, "d/f")); bits != 0o600 {
		t.Errorf("although the root is the group's the file's mode became %o", bits)
	}
	must(t, v.Remove(t.Context(), p.UID))
	p.Spec.SecurityContext.FSGroupChangePolicy = nil
	must(t, v.Setup(t.Context(), p))
	if bits, _ := mode(t, filepath.Join(disk, "d/f")); bits != 0o660 {
		t.Errorf("a new pod's group may not write the file: mode %o", bits)
	}
	must(t, v.Remove(t.Context(), p.UID))
}

// TestLocalWithoutItsMount: what lies in the volume's place although nothing is
// mounted there is somebody's, and is not deleted.
func TestLocalWithoutItsMount(t *testing.T) {
	v := testVolumes(t)
	v.cfg.Claims = claims{localVolume(t.TempDir())}
	p := testPod(t, v, "p", claimVolume("data", false))
	must(t, v.Setup(t.Context(), p))
	dir := v.dir(p.UID, pluginLocal, "local-pv-1")
	must(t, unix.Unmount(dir, 0))
	must(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o600))
	if err := v.Remove(t.Context(), p.UID); err == nil || !strings.Contains(err.Error(), "remove it by hand") {
		t.Errorf("it is told as %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "f")); err != nil {
		t.Error(err)
	}
	must(t, os.Remove(filepath.Join(dir, "f")))
	must(t, v.Remove(t.Context(), p.UID))
	wantGone(t, v, p)
}

// TestClaimedHostPath: by the rules of hostPath, and never the group's.
func TestClaimedHostPath(t *testing.T) {
	v, dir := testVolumes(t), t.TempDir()
	volume := &corev1.PersistentVolume{}
	volume.Spec.HostPath = &corev1.HostPathVolumeSource{Path: dir, Type: new(corev1.HostPathDirectory)}
	v.cfg.Claims = claims{volume}
	p := testPod(t, v, "p", claimVolume("data", false))
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: new(int64(5000))}
	must(t, v.Setup(t.Context(), p))
	mounts, err := v.Mounts(t.Context(), p, &p.Spec.Containers[0])
	must(t, err)
	if _, gid := mode(t, dir); mounts[0].HostPath != dir || gid != 0 {
		t.Errorf("the container gets %v, of group %d", mounts[0], gid)
	}
	volume.Spec.HostPath.Path = filepath.Join(dir, "none")
	if err := v.Setup(t.Context(), p); err == nil || !strings.Contains(err.Error(), "is not a directory") {
		t.Errorf("a wrong type is told as %v", err)
	}
	must(t, v.Remove(t.Context(), p.UID))
}

// TestLocalRefused: what is no directory, and paths that cannot be meant.
func TestLocalRefused(t *testing.T) {
	v := testVolumes(t)
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for path, want := range map[string]string{
		file: "is no directory", "/nowhere": "no such file", "relative": "must be absolute", "/mnt/../etc": "not contain '..'",
	} {
		v.cfg.Claims = claims{localVolume(path)}
		p := testPod(t, v, "p", claimVolume("data", false))
		if err := v.Setup(t.Context(), p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
		must(t, v.Remove(t.Context(), p.UID))
	}
}

// TestGiveIsBounded: a tree that is too deep is refused before it costs all
// descriptors.
func TestGiveIsBounded(t *testing.T) {
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	for range maxDepth + 2 {
		must(t, unix.Mkdirat(fd, "d", 0o700))
		next, err := unix.Openat(fd, "d", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd = next
	}
	must(t, unix.Close(fd))
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(root)
	if err := give(root, int64(os.Getgid())); err == nil || !strings.Contains(err.Error(), fmt.Sprint(maxDepth)) {
		t.Errorf("it is told as %v", err)
	}
}
