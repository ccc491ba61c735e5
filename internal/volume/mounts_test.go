package volume

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/test/need"
)

// TestRecursiveReadOnly: what each mode becomes where the handler can and where
// it cannot; it is the pod's handler that is asked.
func TestRecursiveReadOnly(t *testing.T) {
	v := testVolumes(t)
	v.cfg.RecursiveReadOnly = func(_ context.Context, handler string) bool { return handler == "can" }
	for _, x := range []struct {
		mode     corev1.RecursiveReadOnlyMode
		handler  string
		readOnly bool
		spreads  corev1.MountPropagationMode
		want     bool
		refused  string
	}{
		{corev1.RecursiveReadOnlyDisabled, "can", true, "", false, ""},
		{corev1.RecursiveReadOnlyIfPossible, "can", true, "", true, ""},
		{corev1.RecursiveReadOnlyIfPossible, "", true, "", false, ""},
		{corev1.RecursiveReadOnlyEnabled, "can", true, corev1.MountPropagationNone, true, ""},
		{corev1.RecursiveReadOnlyEnabled, "", true, "", false, "not supported by the runtime"},
		{corev1.RecursiveReadOnlyEnabled, "can", false, "", false, "is not read-only"},
		{corev1.RecursiveReadOnlyIfPossible, "can", true, corev1.MountPropagationHostToContainer, false, "not compatible with propagation"},
		{"Later", "can", true, "", false, "unknown"},
	} {
		p := testPod(t, v, "p", emptyDir("v", corev1.EmptyDirVolumeSource{}))
		if x.handler != "" {
			p.Spec.RuntimeClassName = &x.handler
		}
		m := &p.Spec.Containers[0].VolumeMounts[0]
		m.ReadOnly, m.RecursiveReadOnly = x.readOnly, &x.mode
		if x.spreads != "" {
			m.MountPropagation = &x.spreads
		}
		got, err := v.Mounts(t.Context(), p, &p.Spec.Containers[0])
		switch {
		case x.refused != "":
			if err == nil || !strings.Contains(err.Error(), x.refused) {
				t.Errorf("%+v: %v", x, err)
			}
		case err != nil || got[0].RecursiveReadOnly != x.want:
			t.Errorf("%+v became %v, %v", x, got, err)
		}
	}
}

func TestPropagation(t *testing.T) {
	for mode, want := range map[corev1.MountPropagationMode]runtimeapi.MountPropagation{
		corev1.MountPropagationNone:            runtimeapi.MountPropagation_PROPAGATION_PRIVATE,
		corev1.MountPropagationHostToContainer: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER,
		corev1.MountPropagationBidirectional:   runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL,
	} {
		if got := propagation(&mode); got != want {
			t.Errorf("%s became %v", mode, got)
		}
	}
	if got := propagation(nil); got != runtimeapi.MountPropagation_PROPAGATION_PRIVATE {
		t.Errorf("nothing became %v", got)
	}
}

// TestRoot: what is mounted in the root directory spreads, whatever the host's
// mounts are; a second daemon changes nothing, and pods' mounts are never hidden.
func TestRoot(t *testing.T) {
	v := testVolumes(t)
	base := filepath.Dir(v.cfg.RootDir)
	must(t, unix.Mount("tmpfs", base, "tmpfs", 0, "size=1m"))
	must(t, unix.Mount("", base, "", unix.MS_PRIVATE, ""))
	mounts := func() int {
		t.Helper()
		all, err := mountsBelow(base)
		must(t, err)
		return len(all)
	}
	for range 2 {
		must(t, v.Root())
		if on, _, err := mountOf(v.cfg.RootDir); err != nil || on.Mountpoint != v.cfg.RootDir || !strings.Contains(on.Optional, "shared:") {
			t.Errorf("the root directory is on %+v, %v", on, err)
		}
	}
	if n := mounts(); n != 2 {
		t.Errorf("there are %d mounts, want 2", n)
	}
	for _, dir := range []string{"", "pods", "plugins", "plugins_registry", "pod-resources"} {
		if bits, _ := mode(t, filepath.Join(v.cfg.RootDir, dir)); bits != 0o750 {
			t.Errorf("the root directory's %q has mode %o", dir, bits)
		}
	}
	must(t, unix.Unmount(v.cfg.RootDir, 0))
	p := testPod(t, v, "p", emptyDir("m", corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}))
	must(t, v.Setup(t.Context(), p))
	must(t, v.Root())
	if all, err := v.mountsOf(p.UID); err != nil || len(all) != 1 || mounts() != 2 {
		t.Errorf("with a pod's mounts there are %v, %v", all, err)
	}
	must(t, v.Remove(t.Context(), p.UID))
	must(t, unix.Mount("", base, "", unix.MS_SHARED, ""))
	must(t, v.Root())
	if n := mounts(); n != 1 {
		t.Errorf("on a shared mount there are %d mounts, want 1", n)
	}
	must(t, unix.Unmount(base, unix.MNT_DETACH))
}

// TestPageSize: which huge pages a medium stands for.
func TestPageSize(t *testing.T) {
	for _, x := range []struct {
		medium  string
		asked   []string
		want    int64
		refused string
	}{
		{"HugePages", []string{"hugepages-2Mi"}, 2 << 20, ""},
		{"HugePages", []string{"hugepages-2Mi", "hugepages-2Mi"}, 2 << 20, ""},
		{"HugePages", nil, 0, "ask for 0 sizes"},
		{"HugePages", []string{"hugepages-2Mi", "hugepages-1Gi"}, 0, "ask for 2 sizes"},
		{"HugePages-1Gi", []string{"hugepages-2Mi", "hugepages-1Gi"}, 1 << 30, ""},
		{"HugePages-1Gi", []string{"hugepages-2Mi"}, 0, "no container of the pod asks"},
		{"HugePages-x", []string{"hugepages-2Mi"}, 0, "names no size"},
	} {
		p := &corev1.Pod{}
		for _, a := range x.asked {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceName(a): resource.MustParse("1Gi"), corev1.ResourceCPU: resource.MustParse("1")}}})
		}
		got, err := pageSize(p, corev1.StorageMedium(x.medium))
		if got != x.want || (err == nil) != (x.refused == "") || err != nil && !strings.Contains(err.Error(), x.refused) {
			t.Errorf("%s of %v is %d, %v", x.medium, x.asked, got, err)
		}
	}
}

// TestHugePages mounts them.
func TestHugePages(t *testing.T) {
	need.Have(t, need.Root, need.HugePages)
	v := testVolumes(t)
	p := testPod(t, v, "p", emptyDir("h", corev1.EmptyDirVolumeSource{Medium: "HugePages-2Mi", SizeLimit: new(resource.MustParse("4Mi"))}))
	p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"hugepages-2Mi": resource.MustParse("4Mi")}
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: new(int64(5000))}
	must(t, v.Setup(t.Context(), p))
	dir := v.dir(p.UID, pluginEmptyDir, "h")
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	if st.Type != unix.HUGETLBFS_MAGIC || st.Bsize != 2<<20 || st.Blocks != 2 {
		t.Errorf("the volume is of type %x with %d pages of %d bytes", st.Type, st.Blocks, st.Bsize)
	}
	if bits, gid := mode(t, dir); bits != 0o2777 || gid != 5000 {
		t.Errorf("the volume has mode %o and group %d", bits, gid)
	}
	f, err := os.Create(filepath.Join(dir, "page"))
	must(t, err)
	must(t, f.Close())
	must(t, v.Remove(t.Context(), p.UID))
	wantGone(t, v, p)
}

// TestNoSwap: what is in memory is never swapped, where the kernel can promise it.
func TestNoSwap(t *testing.T) {
	need.Have(t, need.Root, need.TmpfsNoSwap)
	v := testVolumes(t)
	p := testPod(t, v, "p", emptyDir("m", corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}))
	must(t, v.Setup(t.Context(), p))
	info, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(info)) {
		if strings.Contains(line, v.dir(p.UID, pluginEmptyDir, "m")+" ") && !strings.Contains(line, ",noswap") {
			t.Errorf("the volume is mounted as %s", line)
		}
	}
}
