package volume

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/failpoint"
	"nodeagent/internal/mkdir"
)

// Claims knows what the claims of pods are bound to.
type Claims interface {
	// Claim returns the volume behind the claim that a volume of the pod names. It
	// is one that this node may mount: hostPath or local.
	Claim(p *corev1.Pod, vol *corev1.Volume) (*corev1.PersistentVolume, error)
}

// claimed makes the volume that a claim is bound to, and says where it is.
func (v *Volumes) claimed(ctx context.Context, p *corev1.Pod, vol *corev1.Volume) (string, error) {
	if v.cfg.Claims == nil {
		return "", errors.New("cannot mount a claim: this node has no API server")
	}
	pv, err := v.cfg.Claims.Claim(p, vol)
	if err != nil {
		return "", err
	}
	switch {
	case pv.Spec.HostPath != nil:
		return v.hostPath(ctx, pv.Spec.HostPath)
	case pv.Spec.Local != nil:
		return v.local(ctx, p, vol, pv)
	}
	return "", fmt.Errorf("PV %s is neither hostPath nor local", pv.Name)
}

// readOnlyClaim tells whether the volume is a claim that the pod only reads.
func readOnlyClaim(vol *corev1.Volume) bool {
	return vol.PersistentVolumeClaim != nil && vol.PersistentVolumeClaim.ReadOnly
}

// local mounts a local volume at the pod's place for it, under the name of the
// volume and not of the claim, as kubelet does. The pod's group gets it before it
// is mounted, so that what is mounted is ready. Both may take longer than ctx
// allows; they go on then, and the next one who asks waits for them.
func (v *Volumes) local(ctx context.Context, p *corev1.Pod, vol *corev1.Volume, pv *corev1.PersistentVolume) (string, error) {
	from := pv.Spec.Local.Path
	if err := plain(pv.Name); err != nil {
		return "", err
	}
	if !filepath.IsAbs(from) || slices.Contains(strings.Split(from, "/"), "..") {
		return "", fmt.Errorf("invalid path: %s must be absolute and not contain '..'", from)
	}
	dir := v.dir(p.UID, pluginLocal, pv.Name)
	return dir, v.looks.do(ctx, dir, func() error {
		if err := mkdir.All(dir, 0o750); err != nil {
			return err
		}
		if mounted, err := isMount(dir); mounted || err != nil {
			return err
		}
		tree, err := unix.OpenTree(unix.AT_FDCWD, from, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return name("take a mount of", from, err)
		}
		defer unix.Close(tree)
		if err := v.readyLocal(p, vol, pv, tree); err != nil {
			return err
		}
		if err := failpoint.At(failpoint.VolumeLocalBefore); err != nil {
			return err
		}
		if err := attach(tree, dir); err != nil {
			return err
		}
		return failpoint.At(failpoint.VolumeLocalAfter)
	})
}

// readyLocal looks at what is to be mounted, and gives it to the pod's group,
// unless the pod only reads it or another pod has it already.
func (v *Volumes) readyLocal(p *corev1.Pod, vol *corev1.Volume, pv *corev1.PersistentVolume, tree int) error {
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return name("stat", pv.Spec.Local.Path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("local volume %s: %s is no directory, and this node mounts nothing else", pv.Name, pv.Spec.Local.Path)
	}
	gid := fsGroup(p)
	if gid < 0 || readOnlyClaim(vol) {
		return nil
	}
	mounts, err := mountsBelow(v.pods())
	if err != nil {
		return err
	}
	used := func(m string) bool { return strings.HasSuffix(m, "/"+string(pluginLocal)+"/"+pv.Name) }
	if slices.ContainsFunc(mounts, used) {
		return nil
	}
	sc := p.Spec.SecurityContext
	once := sc.FSGroupChangePolicy != nil && *sc.FSGroupChangePolicy == corev1.FSGroupChangeOnRootMismatch
	if once && groupOwns(&st, gid) {
		return nil
	}
	return give(tree, gid)
}
