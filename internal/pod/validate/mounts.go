package validate

import (
	corev1 "k8s.io/api/core/v1"
)

// checkMounts judges where a container sees its volumes as files.
func checkMounts(at spot, c *corev1.Container, volumes map[string]*corev1.VolumeSource) {
	paths := seen{}
	devices := map[string]string{}
	for _, d := range c.VolumeDevices {
		devices[d.Name] = d.DevicePath
	}
	for i := range c.VolumeMounts {
		m, here := &c.VolumeMounts[i], at.index(i)
		if here.child("name").filled(m.Name) && volumes[m.Name] == nil {
			here.child("name").notFound(m.Name)
		}
		here.child("mountPath").filled(m.MountPath)
		if paths.again(m.MountPath) {
			here.child("mountPath").invalid(m.MountPath, "must be unique")
		}
		if _, both := devices[m.Name]; both {
			here.child("name").invalid(m.Name, "must not already exist in volumeDevices")
		}
		if hasValue(devices, m.MountPath) {
			here.child("mountPath").invalid(m.MountPath, "must not already exist as a path in volumeDevices")
		}
		checkSubPath(here, m)
		checkPropagation(here.child("mountPropagation"), m, c)
		checkRecursiveReadOnly(here.child("recursiveReadOnly"), m)
	}
}

func checkSubPath(at spot, m *corev1.VolumeMount) {
	relative(at.child("subPath"), m.SubPath)
	relative(at.child("subPathExpr"), m.SubPathExpr)
	if m.SubPath != "" && m.SubPathExpr != "" {
		at.child("subPathExpr").invalid(m.SubPathExpr, "subPathExpr and subPath are mutually exclusive")
	}
}

// checkPropagation lets mounts travel back to the host only out of a privileged
// container.
func checkPropagation(at spot, m *corev1.VolumeMount, c *corev1.Container) {
	if m.MountPropagation == nil {
		return
	}
	oneOf(at, *m.MountPropagation, corev1.MountPropagationBidirectional,
		corev1.MountPropagationHostToContainer, corev1.MountPropagationNone)
	privileged := c.SecurityContext != nil && isTrue(c.SecurityContext.Privileged)
	if *m.MountPropagation == corev1.MountPropagationBidirectional && !privileged {
		at.forbidden("Bidirectional mount propagation is available only to privileged containers")
	}
}

func checkRecursiveReadOnly(at spot, m *corev1.VolumeMount) {
	if m.RecursiveReadOnly == nil {
		return
	}
	mode := *m.RecursiveReadOnly
	oneOf(at, mode, corev1.RecursiveReadOnlyDisabled, corev1.RecursiveReadOnlyIfPossible, corev1.RecursiveReadOnlyEnabled)
	if mode != corev1.RecursiveReadOnlyEnabled && mode != corev1.RecursiveReadOnlyIfPossible {
		return
	}
	if !m.ReadOnly {
		at.forbidden("may only be specified when readOnly is true")
	}
	if m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone {
		at.forbidden("may only be specified when mountPropagation is None or not specified")
	}
}

// checkDevices judges where a container sees its volumes as block devices.
func checkDevices(at spot, c *corev1.Container, volumes map[string]*corev1.VolumeSource) {
	names, paths := seen{}, seen{}
	// Of a volume mounted twice only the last path counts, as it does there.
	mounts := map[string]string{}
	for _, m := range c.VolumeMounts {
		mounts[m.Name] = m.MountPath
	}
	for i, d := range c.VolumeDevices {
		name, path := at.index(i).child("name"), at.index(i).child("devicePath")
		name.filled(d.Name)
		if names.again(d.Name) {
			name.invalid(d.Name, "must be unique")
		}
		switch v := volumes[d.Name]; {
		case v == nil:
			name.notFound(d.Name)
		case v.PersistentVolumeClaim == nil && v.Ephemeral == nil:
			name.invalid(d.Name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode")
		}
		path.filled(d.DevicePath)
		if paths.again(d.DevicePath) {
			path.invalid(d.DevicePath, "must be unique")
		}
		if stepsBack(d.DevicePath) {
			path.invalid(d.DevicePath, "can not contain backsteps ('..')")
		}
		if _, both := mounts[d.Name]; both {
			name.invalid(d.Name, "must not already exist in volumeMounts")
		}
		if hasValue(mounts, d.DevicePath) {
			path.invalid(d.DevicePath, "must not already exist as a path in volumeMounts")
		}
	}
}

func hasValue(m map[string]string, value string) bool {
	for _, v := range m {
		if v == value {
			return true
		}
	}
	return false
}
