package volume

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"nodeagent/internal/mkdir"
	"nodeagent/internal/test/need"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const memory = 1 << 30

// testVolumes returns Volumes on a directory of the test's own, from which
// everything is unmounted in the end.
func testVolumes(t testing.TB) *Volumes {
	t.Helper()
	need.Have(t, need.Root)
	dir := t.TempDir()
	v, err := New(Config{RootDir: filepath.Join(dir, "kubelet"), Memory: memory, Objects: &objects{}})
	must(t, err)
	t.Cleanup(func() {
		mounts, err := mountsBelow(dir)
		must(t, err)
		for _, m := range mounts {
			t.Logf("unmount %s", m)
			must(t, unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
		}
	})
	return v
}

// testPod returns a pod of that name with volumes and one container that mounts
// each at /<name>; its directory is there.
func testPod(t testing.TB, v *Volumes, name string, volumes ...corev1.Volume) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: "uid-" + "0123"}}
	p.Spec.Volumes = volumes
	c := corev1.Container{Name: "app"}
	for _, vol := range volumes {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: vol.Name, MountPath: "/" + vol.Name})
	}
	p.Spec.Containers = []corev1.Container{c}
	must(t, mkdir.All(filepath.Join(v.pods(), string(p.UID)), 0o750))
	return p
}

func emptyDir(name string, e corev1.EmptyDirVolumeSource) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &e}}
}

// mode is what stat says of a path: permissions with setuid, setgid, sticky.
func mode(t testing.TB, path string) (bits uint32, gid uint32) {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st.Mode & 0o7777, st.Gid
}

// TestEmptyDir: who may use it, how large it may grow, and that what is in it
// outlives a second daemon.
func TestEmptyDir(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	v := testVolumes(t)
	p := testPod(t, v, "p",
		emptyDir("disk", corev1.EmptyDirVolumeSource{}),
		emptyDir("memory", corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: resource.NewQuantity(1<<20, resource.BinarySI)}))
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: new(int64(5000))}
	must(t, v.Setup(t.Context(), p))
	for name, want := range map[string]uint32{"disk": 0o2777, "memory": 0o3777} {
		dir := v.dir(p.UID, pluginEmptyDir, name)
		if bits, gid := mode(t, dir); bits != want || gid != 5000 {
			t.Errorf("volume %s has mode %o and group %d, want %o and 5000", name, bits, gid, want)
		}
		must(t, os.WriteFile(filepath.Join(dir, "kept"), nil, 0o600))
	}
	// Nobody else on the node gets to a directory that everybody may write to.
	for dir := v.dir(p.UID, pluginEmptyDir, ""); dir != v.cfg.RootDir; dir = filepath.Dir(dir) {
		if bits, _ := mode(t, dir); bits != 0o750 {
			t.Errorf("%s has mode %o, want 750", dir, bits)
		}
	}
	var fs unix.Statfs_t
	must(t, unix.Statfs(v.dir(p.UID, pluginEmptyDir, "memory"), &fs))
	if size := fs.Blocks * uint64(fs.Bsize); fs.Type != unix.TMPFS_MAGIC || size != 1<<20 {
		t.Errorf("the volume in memory is of type %x with %d bytes, want a tmpfs of 1 MiB", fs.Type, size)
	}
	if want := int64(unix.ST_NOSUID | unix.ST_NODEV); fs.Flags&want != want {
		t.Errorf("the volume in memory is mounted with flags %x: set-uid programs and devices work in it", fs.Flags)
	}
	again, err := New(v.cfg)
	must(t, err)
	must(t, again.Setup(t.Context(), p))
	mounts, err := again.Mounts(t.Context(), p, &p.Spec.Containers[0])
	must(t, err)
	for i, name := range []string{"disk", "memory"} {
		dir := v.dir(p.UID, pluginEmptyDir, name)
		if m := mounts[i]; m.HostPath != dir || m.ContainerPath != "/"+name {
			t.Errorf("the mount of %s is %v", name, m)
		}
		if _, err := os.Stat(filepath.Join(dir, "kept")); err != nil {
			t.Errorf("a second setup of %s lost what was in it: %v", name, err)
		}
	}
	for range 2 {
		must(t, again.Remove(t.Context(), p.UID))
	}
	wantGone(t, v, p)
}

func wantGone(t testing.TB, v *Volumes, p *corev1.Pod) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(v.pods(), string(p.UID)))
	if err != nil || len(entries) > 0 {
		t.Errorf("of the pod is left %v, %v", entries, err)
	}
	if mounts, err := v.mountsOf(p.UID); err != nil || len(mounts) > 0 {
		t.Errorf("there are still mounted %v, %v", mounts, err)
	}
}

// TestMemorySize: kubelet's rule for how large a volume in memory is.
func TestMemorySize(t *testing.T) {
	v := &Volumes{cfg: Config{Memory: memory}}
	limited := func(limits ...string) *corev1.Pod {
		p := &corev1.Pod{}
		for _, l := range limits {
			c := corev1.Container{}
			if l != "" {
				c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(l)}
			}
			p.Spec.Containers = append(p.Spec.Containers, c)
		}
		return p
	}
	for name, x := range map[string]struct {
		pod   *corev1.Pod
		limit string
		want  int64
	}{
		"nothing is limited":         {limited(""), "", memory},
		"the volume":                 {limited(""), "1Mi", 1 << 20},
		"the pod":                    {limited("2Mi", "3Mi"), "", 5 << 20},
		"both, the pod less":         {limited("2Mi"), "3Mi", 2 << 20},
		"both, the volume less":      {limited("3Mi"), "2Mi", 2 << 20},
		"a container is not":         {limited("3Mi", ""), "", memory},
		"a limit of nothing":         {limited(""), "0", memory},
		"more than the node":         {limited(""), "2Gi", memory},
		"the pod more than the node": {limited("2Gi"), "", memory},
	} {
		e := &corev1.EmptyDirVolumeSource{}
		if x.limit != "" {
			e.SizeLimit = new(resource.MustParse(x.limit))
		}
		if got := v.memorySize(x.pod, e); got != x.want {
			t.Errorf("%s: %d, want %d", name, got, x.want)
		}
	}
}

// TestSetupIsFinished: whatever a daemon that was killed left of a volume, the
// next one completes it.
func TestSetupIsFinished(t *testing.T) {
	v := testVolumes(t)
	p := testPod(t, v, "p", emptyDir("disk", corev1.EmptyDirVolumeSource{}),
		emptyDir("memory", corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}))
	must(t, mkdir.All(v.dir(p.UID, pluginEmptyDir, ".new-disk"), 0o700))
	must(t, mkdir.All(v.dir(p.UID, pluginEmptyDir, "memory"), 0o700))
	must(t, v.Setup(t.Context(), p))
	for name, want := range map[string]uint32{"disk": 0o777, "memory": 0o1777} {
		if bits, _ := mode(t, v.dir(p.UID, pluginEmptyDir, name)); bits != want {
			t.Errorf("volume %s has mode %o", name, bits)
		}
	}
	entries, err := os.ReadDir(v.dir(p.UID, pluginEmptyDir, ""))
	must(t, err)
	if len(entries) != 2 {
		t.Errorf("beside the volumes is left %v", entries)
	}
	// A mount that was lost is made again before a container gets it.
	must(t, unix.Unmount(v.dir(p.UID, pluginEmptyDir, "memory"), 0))
	_, err = v.Mounts(t.Context(), p, &p.Spec.Containers[0])
	must(t, err)
	if mounted, err := isMount(v.dir(p.UID, pluginEmptyDir, "memory")); err != nil || !mounted {
		t.Errorf("the lost mount is back: %v, %v", mounted, err)
	}
}

// TestNames: no name leads out of the pod's directory.
func TestNames(t *testing.T) {
	v := testVolumes(t)
	for _, name := range []string{"", ".", "..", "../x", "a/b", "a\x00b", ".new-x"} {
		if err := v.Setup(t.Context(), testPod(t, v, "p", emptyDir(name, corev1.EmptyDirVolumeSource{}))); err == nil {
			t.Errorf("the name %q is taken for a directory's", name)
		}
	}
	if _, err := os.Stat(v.volumes("uid-0123")); !os.IsNotExist(err) {
		t.Errorf("a refused volume left something: %v", err)
	}
}

func asAbsent(err error, to *interface{ Absent() bool }) bool { return errors.As(err, to) }
