package volume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/mkdir"
)

// TestMeasure counts as du does: no link is followed, no mount is crossed, a file
// of two names counts once; a file system of its own knows by itself.
func TestMeasure(t *testing.T) {
	v := testVolumes(t)
	p := testPod(t, v, "p", emptyDir("disk", corev1.EmptyDirVolumeSource{}),
		emptyDir("memory", corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: new(resource.MustParse("1Mi"))}))
	must(t, v.Setup(t.Context(), p))
	measure := func(ctx context.Context) map[string]Usage {
		t.Helper()
		all, err := Measure(ctx, v.cfg.RootDir, p.UID)
		must(t, err)
		by := map[string]Usage{}
		for _, u := range all {
			by[u.Name] = u
		}
		return by
	}
	if u := measure(t.Context())["disk"]; u.Bytes != 0 || u.Inodes != 0 || u.Kind != "empty-dir" || u.Partial {
		t.Errorf("an empty volume takes %+v", u)
	}
	disk, mem := v.dir(p.UID, pluginEmptyDir, "disk"), v.dir(p.UID, pluginEmptyDir, "memory")
	must(t, os.WriteFile(filepath.Join(disk, "file"), make([]byte, 1<<20), 0o600))
	must(t, os.Link(filepath.Join(disk, "file"), filepath.Join(disk, "again")))
	must(t, os.Symlink("/", filepath.Join(disk, "root")))
	must(t, mkdir.All(filepath.Join(disk, "mount"), 0o755))
	must(t, unix.Mount("tmpfs", filepath.Join(disk, "mount"), "tmpfs", 0, "size=64k"))
	must(t, os.WriteFile(filepath.Join(disk, "mount", "other"), make([]byte, 32<<10), 0o600))
	must(t, os.WriteFile(filepath.Join(mem, "file"), make([]byte, 8<<10), 0o600))
	by := measure(t.Context())
	// One of the two names, the link, and the directory with the mount.
	if u := by["disk"]; u.Inodes != 3 || u.Bytes < 1<<20 || u.Bytes >= 1<<20+32<<10 || u.Partial {
		t.Errorf("the volume on the disk takes %+v", u)
	}
	if u := by["memory"]; u.Capacity != 1<<20 || u.Bytes != 8<<10 {
		t.Errorf("the volume in memory takes %+v", u)
	}
	deep := disk
	for i := range countDepth + 5 {
		deep = filepath.Join(deep, fmt.Sprint(i))
		must(t, os.Mkdir(deep, 0o755))
	}
	if u := measure(t.Context())["disk"]; !u.Partial {
		t.Errorf("a volume that is too deep is told whole: %+v", u)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if u := measure(ended)["disk"]; !u.Partial {
		t.Errorf("a count that was cut short is told whole: %+v", u)
	}
	must(t, v.Remove(t.Context(), p.UID))
}

// TestUsage: what the daemon tells of a pod's volumes is of a period, and goes
// with them; it can be switched off.
func TestUsage(t *testing.T) {
	v := testVolumes(t)
	p := testPod(t, v, "p", emptyDir("disk", corev1.EmptyDirVolumeSource{}))
	usage := func() []Usage { return v.Usage(t.Context(), []types.UID{p.UID})[p.UID].Volumes }
	must(t, v.Setup(t.Context(), p))
	if all := usage(); len(all) != 1 || all[0].Inodes != 0 {
		t.Errorf("an empty volume is told as %+v", all)
	}
	must(t, os.WriteFile(filepath.Join(v.dir(p.UID, pluginEmptyDir, "disk"), "file"), nil, 0o600))
	if all := usage(); len(all) != 1 || all[0].Inodes != 0 {
		t.Errorf("within a minute it is told as %+v", all)
	}
	must(t, v.Remove(t.Context(), p.UID))
	if all := usage(); len(all) != 0 {
		t.Errorf("after its removal it is told as %+v", all)
	}
	must(t, v.Setup(t.Context(), p))
	v.meter.period = 0
	if all := usage(); len(all) != 1 {
		t.Errorf("made again it is told as %+v", all)
	}
	v.cfg.StatsPeriod = -1
	if all := usage(); len(all) != 0 {
		t.Errorf("switched off it is told as %+v", all)
	}
	must(t, v.Remove(t.Context(), p.UID))
}
