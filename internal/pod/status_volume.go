package pod

import corev1 "k8s.io/api/core/v1"

// volumeMounts tells how the run has its volumes. Only of a mount that is
// read-only it is said whether it is so recursively.
func volumeMounts(c *corev1.Container, run *Container) []corev1.VolumeMountStatus {
	var all []corev1.VolumeMountStatus
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		s := corev1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			mode := corev1.RecursiveReadOnlyDisabled
			if m.RecursiveReadOnly != nil && *m.RecursiveReadOnly != corev1.RecursiveReadOnlyDisabled && run.RecursiveReadOnly {
				mode = corev1.RecursiveReadOnlyEnabled
			}
			s.RecursiveReadOnly = &mode
		}
		all = append(all, s)
	}
	return all
}
