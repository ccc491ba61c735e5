package pod

import corev1 "k8s.io/api/core/v1"

// MaskedPaths are the paths of /proc and /sys that a container cannot see, as
// kubelet's securitycontext package lists them (FEATURES of the kernel that show
// or change the host); none for an unmasked /proc.
func MaskedPaths(m *corev1.ProcMountType) []string {
	if m != nil && *m == corev1.UnmaskedProcMount {
		return nil
	}
	return []string{
		"/proc/asound",
		"/proc/acpi",
		"/proc/interrupts",
		"/proc/kcore",
		"/proc/keys",
		"/proc/latency_stats",
		"/proc/timer_list",
		"/proc/timer_stats",
		"/proc/sched_debug",
		"/proc/scsi",
		"/sys/firmware",
		"/sys/devices/virtual/powercap",
	}
}

// ReadonlyPaths are the paths of /proc that a container may read but not write.
func ReadonlyPaths(m *corev1.ProcMountType) []string {
	if m != nil && *m == corev1.UnmaskedProcMount {
		return nil
	}
	return []string{
		"/proc/bus",
		"/proc/fs",
		"/proc/irq",
		"/proc/sys",
		"/proc/sysrq-trigger",
	}
}
