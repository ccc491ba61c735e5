package volume

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/mkdir"
)

// TestEnvFile: a file in an emptyDir is read, and nothing else: what a container
// puts in its place leads nowhere and holds up nobody.
func TestEnvFile(t *testing.T) {
	v := testVolumes(t)
	p, dir := testSubPath(t, v, "")
	p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/etc"}}})
	must(t, mkdir.All(filepath.Join(dir, "d"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "d", "env"), []byte("K='v'\n"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "big"), make([]byte, maxEnvFile+1), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "full"), make([]byte, maxEnvFile), 0o600))
	must(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	must(t, unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	for name, to := range map[string]string{"in": "d/env", "out": "/etc/passwd", "up": "../../../../../etc/passwd", "self": "/proc/self/environ", "loop": "loop"} {
		must(t, os.Symlink(to, filepath.Join(dir, name)))
	}
	for _, path := range []string{"d/env", "in", "full"} {
		if text, err := v.EnvFile(t.Context(), p, "disk", path); err != nil || path != "full" && string(text) != "K='v'\n" {
			t.Errorf("%s holds %q, %v", path, text, err)
		}
	}
	for _, path := range []string{"out", "up", "self", "loop", "pipe", "null", "big", "d", "none", "..", "../x", "/etc/passwd", "d/env/x", ""} {
		text, err := v.EnvFile(t.Context(), p, "disk", path)
		if err == nil {
			t.Errorf("%q is read: %d bytes", path, len(text))
		} else if strings.Contains(err.Error(), dir) {
			t.Errorf("the error tells where the volume is: %v", err)
		}
	}
	for _, volume := range []string{"host", "none"} {
		if _, err := v.EnvFile(t.Context(), p, volume, "passwd"); err == nil {
			t.Errorf("volume %s is read", volume)
		}
	}
}
