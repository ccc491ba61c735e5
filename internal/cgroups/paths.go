package cgroups

import (
	"fmt"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// scopePrefix is what CRI puts before a container's name in a systemd scope.
const scopePrefix = "cri-containerd"

// maxUID bounds a pod's UID: with prefix and suffix it must fit in a file name.
const maxUID = 128

// names returns a cgroup as internal names from the root on, from which both
// drivers make a path.
func (t *Tree) names(below ...string) []string {
	var out []string
	for n := range strings.SplitSeq(strings.Trim(t.root, "/"), "/") {
		if n != "" {
			out = append(out, n)
		}
	}
	return append(out, below...)
}

// path returns the path of a cgroup from its internal names: joined by
// slashes, or as nested slices.
func (t *Tree) path(names []string) string {
	if t.driver != Systemd {
		return "/" + path.Join(names...)
	}
	return slicePath(names)
}

// slicePath turns {"kubepods", "burstable", "pod1-2"} into
// /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice:
// systemd reads a dash as a level, so one within a name becomes "_".
func slicePath(names []string) string {
	p, prefix := "/", ""
	for _, n := range names {
		prefix += strings.ReplaceAll(n, "-", "_")
		p = path.Join(p, prefix+".slice")
		prefix += "-"
	}
	return p
}

func (t *Tree) kubepods() string { return t.path(t.names("kubepods")) }

// class returns the cgroup of a QoS class; Guaranteed pods stand in kubepods
// directly.
func (t *Tree) class(qos corev1.PodQOSClass) string {
	switch qos {
	case corev1.PodQOSBurstable:
		return t.path(t.names("kubepods", "burstable"))
	case corev1.PodQOSBestEffort:
		return t.path(t.names("kubepods", "besteffort"))
	}
	return t.kubepods()
}

// classes are all three, Guaranteed first.
func classes() []corev1.PodQOSClass {
	return []corev1.PodQOSClass{corev1.PodQOSGuaranteed, corev1.PodQOSBurstable, corev1.PodQOSBestEffort}
}

// PodPath returns the cgroup of a pod, whether it exists or not.
func (t *Tree) PodPath(uid types.UID, qos corev1.PodQOSClass) (string, error) {
	if err := t.checkUID(uid); err != nil {
		return "", err
	}
	return t.podPath(uid, qos), nil
}

func (t *Tree) podPath(uid types.UID, qos corev1.PodQOSClass) string {
	names := t.names("kubepods")
	switch qos {
	case corev1.PodQOSBurstable:
		names = append(names, "burstable")
	case corev1.PodQOSBestEffort:
		names = append(names, "besteffort")
	}
	return t.path(append(names, "pod"+string(uid)))
}

// checkUID refuses a UID that cannot be the name of a directory or a unit: a
// manifest may say what it likes there.
func (t *Tree) checkUID(uid types.UID) error {
	if uid == "" || len(uid) > maxUID {
		return fmt.Errorf("pod UID of %d bytes cannot name a cgroup: want 1 to %d", len(uid), maxUID)
	}
	if i := strings.IndexFunc(string(uid), func(r rune) bool { return !t.uidRune(r) }); i >= 0 {
		return fmt.Errorf("pod UID %q cannot name a cgroup: %q is not allowed in it", uid, string(uid)[i:i+1])
	}
	return nil
}

func (t *Tree) uidRune(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-':
		return true
	case r == '_':
		return t.driver != Systemd // there it stands for a dash
	case r == '.':
		return t.driver != Systemd
	}
	return false
}

// uidOf turns the last element of a pod's path back into its UID.
func (t *Tree) uidOf(name string) (types.UID, bool) {
	if t.driver == Systemd {
		unit, ok := strings.CutSuffix(name, ".slice")
		if !ok {
			return "", false
		}
		name = strings.ReplaceAll(unit[strings.LastIndex(unit, "-")+1:], "_", "-")
	}
	uid, ok := strings.CutPrefix(name, "pod")
	if !ok || t.checkUID(types.UID(uid)) != nil {
		return "", false
	}
	return types.UID(uid), true
}

// ContainerPath returns what an OCI spec's linux.cgroupsPath must be for a
// container in the pod's cgroup parent: an absolute path with the cgroupfs
// driver, "slice:prefix:name" with systemd's.
func (t *Tree) ContainerPath(parent, containerID string) string {
	if t.driver == Systemd {
		return path.Base(parent) + ":" + scopePrefix + ":" + containerID
	}
	return path.Join(parent, containerID)
}

// ContainerCgroup returns the cgroup that the OCI runtime makes for it.
func (t *Tree) ContainerCgroup(parent, containerID string) string {
	if t.driver == Systemd {
		return path.Join(parent, scopePrefix+"-"+containerID+".scope")
	}
	return path.Join(parent, containerID)
}
