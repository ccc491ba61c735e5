package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/mkdir"
)

// Kinds of volume that show objects and the pod itself.
const (
	pluginConfigMap plugin = "kubernetes.io~configmap"
	pluginSecret    plugin = "kubernetes.io~secret"
	pluginDownward  plugin = "kubernetes.io~downward-api"
	pluginProjected plugin = "kubernetes.io~projected"
)

// objectPlugin is the kind of a volume that shows objects, "" of any other.
func objectPlugin(vol *corev1.Volume) plugin {
	switch {
	case vol.ConfigMap != nil:
		return pluginConfigMap
	case vol.Secret != nil:
		return pluginSecret
	case vol.DownwardAPI != nil:
		return pluginDownward
	case vol.Projected != nil:
		return pluginProjected
	}
	return ""
}

// setupObjects makes the volume and shows in it what there is now. Only root
// writes to it: the containers' mounts are read-only, and the directory is
// another user's to read only. All but ConfigMaps are kept in memory, as kubelet
// has it.
func (v *Volumes) setupObjects(ctx context.Context, p *corev1.Pod, vol *corev1.Volume) error {
	files, err := v.payload(p, vol)
	if isUnread(err) && v.isShown(p, vol) {
		// The API server is away, perhaps for hours, and this daemon is new: what
		// is shown stays true until it is told otherwise, which wakes the pod.
		v.log.Warn("leave a volume as it is", "pod", p.Namespace+"/"+p.Name, "podUID", p.UID, "volume", vol.Name, "err", err)
		return nil
	}
	if err != nil {
		return err
	}
	if err := files.check(); err != nil {
		return err
	}
	kind := objectPlugin(vol)
	dir, o := v.dir(p.UID, kind, vol.Name), owner{mode: 0o755, gid: fsGroup(p), readOnly: true}
	if kind == pluginConfigMap {
		err = makeDir(dir, o)
	} else {
		if err = closed(filepath.Dir(dir)); err == nil {
			err = mountTmpfs(dir, v.memorySize(p, nil), o)
		}
	}
	if err != nil {
		return err
	}
	return show(ctx, dir, files, o.gid)
}

// closed makes the directory of a kind of volume, into which root alone gets.
func closed(dir string) error {
	if err := mkdir.All(filepath.Dir(dir), 0o750); err != nil {
		return err
	}
	return mkdir.All(dir, 0o700)
}

// shown is where such a volume is. What it shows is not asked for again, since
// the object may be gone meanwhile; only a volume that is lost is set up anew.
func (v *Volumes) shown(ctx context.Context, p *corev1.Pod, vol *corev1.Volume) (string, error) {
	dir := v.dir(p.UID, objectPlugin(vol), vol.Name)
	_, err := os.Readlink(filepath.Join(dir, dataLink))
	if errors.Is(err, os.ErrNotExist) {
		err = v.setupObjects(ctx, p, vol)
	}
	return dir, err
}

// isShown tells whether the volume shows something.
func (v *Volumes) isShown(p *corev1.Pod, vol *corev1.Volume) bool {
	_, err := os.Readlink(filepath.Join(v.dir(p.UID, objectPlugin(vol), vol.Name), dataLink))
	return err == nil
}
