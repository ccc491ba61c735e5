package cgroups

import (
	"path"
	"strings"
	"testing"

	"github.com/containerd/cgroups/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Kubelet's names, golden.
func TestPaths(t *testing.T) {
	const uid = types.UID("8f3f5a7e-1234-4c5d-9e8f-001122334455")
	for _, c := range []struct {
		root, driver string
		qos          corev1.PodQOSClass
		want         string
	}{
		{"/", Cgroupfs, corev1.PodQOSGuaranteed, "/kubepods/pod8f3f5a7e-1234-4c5d-9e8f-001122334455"},
		{"/", Cgroupfs, corev1.PodQOSBurstable, "/kubepods/burstable/pod8f3f5a7e-1234-4c5d-9e8f-001122334455"},
		{"", Cgroupfs, corev1.PodQOSBestEffort, "/kubepods/besteffort/pod8f3f5a7e-1234-4c5d-9e8f-001122334455"},
		{"/a-b/c", Cgroupfs, corev1.PodQOSBestEffort, "/a-b/c/kubepods/besteffort/pod8f3f5a7e-1234-4c5d-9e8f-001122334455"},
		{"/", Systemd, corev1.PodQOSGuaranteed, "/kubepods.slice/kubepods-pod8f3f5a7e_1234_4c5d_9e8f_001122334455.slice"},
		{"/", Systemd, corev1.PodQOSBurstable, "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod8f3f5a7e_1234_4c5d_9e8f_001122334455.slice"},
		{"/", Systemd, corev1.PodQOSBestEffort, "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod8f3f5a7e_1234_4c5d_9e8f_001122334455.slice"},
		{"/a-b", Systemd, corev1.PodQOSGuaranteed, "/a_b.slice/a_b-kubepods.slice/a_b-kubepods-pod8f3f5a7e_1234_4c5d_9e8f_001122334455.slice"},
		{"../../x", Cgroupfs, corev1.PodQOSGuaranteed, "/x/kubepods/pod8f3f5a7e-1234-4c5d-9e8f-001122334455"},
	} {
		tree := &Tree{root: path.Clean("/" + c.root), driver: c.driver}
		got, err := tree.PodPath(uid, c.qos)
		if err != nil || got != c.want {
			t.Errorf("%s %s %s: %s, %v, want %s", c.root, c.driver, c.qos, got, err, c.want)
		}
		if back, ok := tree.uidOf(path.Base(got)); !ok || back != uid {
			t.Errorf("%s is read back as %q", got, back)
		}
	}
}

func TestContainerPathWithCgroupfs(t *testing.T) {
	tree := &Tree{root: "/", driver: Cgroupfs}
	if got := tree.ContainerPath("/kubepods/pod1", "abc"); got != "/kubepods/pod1/abc" {
		t.Errorf("container path %s", got)
	}
}

// FuzzUID: a UID that is taken names exactly one directory below its class, and
// is read back as it was.
func FuzzUID(f *testing.F) {
	for _, s := range []string{"a", "..", "a/b", "", "a_b", "a.b", "a\x00", "-", "A-1", "é", strings.Repeat("a", 129)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, driver := range []string{Cgroupfs, Systemd} {
			tree := &Tree{root: "/", driver: driver}
			for _, qos := range classes() {
				p, err := tree.PodPath(types.UID(s), qos)
				if err != nil {
					continue
				}
				if path.Clean(p) != p || path.Dir(p) != tree.class(qos) || len(path.Base(p)) > 255 {
					t.Errorf("%q is at %s", s, p)
				}
				if back, ok := tree.uidOf(path.Base(p)); !ok || string(back) != s {
					t.Errorf("%q is read back as %q", s, back)
				}
			}
		}
	})
}

func TestV1Controllers(t *testing.T) {
	for options, want := range map[string]string{
		"rw,memory":             "memory",
		"rw,cpu,cpuacct":        "cpu cpuacct",
		"rw,xattr,name=systemd": "name=systemd",
		"rw,clone_children,cpuset,noprefix,release_agent=/x/y": "cpuset",
	} {
		if got := strings.Join(v1Controllers(options), " "); got != want {
			t.Errorf("%s: %s, want %s", options, got, want)
		}
	}
}

func TestDetect(t *testing.T) {
	for _, c := range []struct {
		name   string
		mounts mounts
		want   cgroups.CGMode
		v2     bool
	}{
		{"v2", mounts{{Dir: "/m", Unified: true}}, cgroups.Unified, true},
		{"v1", mounts{{Dir: "/m/cpu", Controllers: []string{"cpu"}}}, cgroups.Legacy, false},
		{"hybrid", mounts{{Dir: "/m/cpu", Controllers: []string{"cpu"}}, {Dir: "/m/unified", Unified: true}}, cgroups.Hybrid, false},
		{"v1 mounted in v2", mounts{{Dir: "/m/x", Controllers: []string{"cpu"}}, {Dir: "/m", Unified: true}}, cgroups.Unified, true},
		{"nothing", nil, cgroups.Unavailable, false},
		{"v2 below only", mounts{{Dir: "/m/unified", Unified: true}}, cgroups.Unavailable, false},
	} {
		tree, err := New(Config{Mountpoint: "/m", Driver: Cgroupfs, Kernel: c.mounts})
		if c.want == cgroups.Unavailable {
			if err == nil {
				t.Errorf("%s: no error", c.name)
			}
			continue
		}
		if err != nil || tree.Mode() != c.want || tree.V2() != c.v2 {
			t.Errorf("%s: %v, %v", c.name, tree, err)
		}
	}
	if _, err := New(Config{Mountpoint: "/m", Driver: "other", Kernel: mounts{{Dir: "/m", Unified: true}}}); err == nil {
		t.Error("an unknown driver was taken")
	}
}

// mounts is a kernel of which only the mounts are asked.
type mounts []Hierarchy

func (m mounts) Hierarchies(string) ([]Hierarchy, error) { return m, nil }
func (mounts) Mkdir(string) error                        { return nil }
func (mounts) Rmdir(string) error                        { return nil }
func (mounts) Write(string, string) error                { return nil }
