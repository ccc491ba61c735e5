package validate

import (
	"regexp"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/component-helpers/node/util/sysctl"
)

// checkPodSecurity judges the security context of the pod as a whole.
func checkPodSecurity(at spot, spec *corev1.PodSpec) {
	sc := spec.SecurityContext
	if sc == nil {
		return
	}
	here := at.child("securityContext")
	userID(here.child("runAsUser"), sc.RunAsUser)
	groupID(here.child("runAsGroup"), sc.RunAsGroup)
	groupID(here.child("fsGroup"), sc.FSGroup)
	for i := range sc.SupplementalGroups {
		groupID(here.child("supplementalGroups").index(i), &sc.SupplementalGroups[i])
	}
	if p := sc.SupplementalGroupsPolicy; p != nil {
		oneOf(here.child("supplementalGroupsPolicy"), *p, corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)
	}
	if p := sc.FSGroupChangePolicy; p != nil {
		oneOf(here.child("fsGroupChangePolicy"), *p, corev1.FSGroupChangeOnRootMismatch, corev1.FSGroupChangeAlways)
	}
	if p := sc.SELinuxChangePolicy; p != nil {
		// MountOption needs the feature gate SELinuxMount, off by default.
		oneOf(here.child("seLinuxChangePolicy"), *p, corev1.SELinuxChangePolicyRecursive)
	}
	checkSysctls(here.child("sysctls"), spec)
	checkSeccomp(here.child("seccompProfile"), sc.SeccompProfile)
	checkAppArmor(here.child("appArmorProfile"), sc.AppArmorProfile)
	checkWindowsOptions(here.child("windowsOptions"), sc.WindowsOptions)
}

// checkSecurity judges the security context of one container.
func checkSecurity(at spot, sc *corev1.SecurityContext, spec *corev1.PodSpec) {
	if sc == nil {
		return
	}
	userID(at.child("runAsUser"), sc.RunAsUser)
	groupID(at.child("runAsGroup"), sc.RunAsGroup)
	if sc.ProcMount != nil {
		proc := at.child("procMount")
		oneOf(proc, *sc.ProcMount, corev1.DefaultProcMount, corev1.UnmaskedProcMount)
		if *sc.ProcMount == corev1.UnmaskedProcMount && (spec.HostUsers == nil || *spec.HostUsers) {
			proc.invalid(*sc.ProcMount, "`hostUsers` must be false to use `Unmasked`")
		}
	}
	if sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation {
		checkNoEscalation(at, sc)
	}
	checkSeccomp(at.child("seccompProfile"), sc.SeccompProfile)
	checkAppArmor(at.child("appArmorProfile"), sc.AppArmorProfile)
	checkWindowsOptions(at.child("windowsOptions"), sc.WindowsOptions)
}

// checkNoEscalation refuses what no_new_privs could not keep from escalating.
// Like the API server it knows only the spelling CAP_SYS_ADMIN.
func checkNoEscalation(at spot, sc *corev1.SecurityContext) {
	if isTrue(sc.Privileged) {
		at.invalid("", "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
	}
	if sc.Capabilities == nil {
		return
	}
	for _, c := range sc.Capabilities.Add {
		if c == "CAP_SYS_ADMIN" {
			at.invalid("", "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN")
		}
	}
}

func userID(at spot, id *int64) {
	if id != nil {
		at.format(*id, validation.IsValidUserID(*id))
	}
}

func groupID(at spot, id *int64) {
	if id != nil {
		at.format(*id, validation.IsValidGroupID(*id))
	}
}

// checkHostNamespaces judges how the pod shares namespaces with the host.
func checkHostNamespaces(at spot, spec *corev1.PodSpec) {
	if isTrue(spec.ShareProcessNamespace) && spec.HostPID {
		at.child("shareProcessNamespace").invalid(true, "ShareProcessNamespace and HostPID cannot both be enabled")
	}
	if spec.HostNetwork {
		checkHostNetworkPorts(at.child("containers"), spec.Containers)
	}
	if spec.HostUsers == nil || *spec.HostUsers {
		return
	}
	const why = "when `hostUsers` is false"
	if spec.HostNetwork {
		at.child("hostNetwork").forbidden(why)
	}
	if spec.HostPID {
		at.child("hostPID").forbidden(why)
	}
	if spec.HostIPC {
		at.child("hostIPC").forbidden(why)
	}
	everyContainer(at, spec, func(here spot, c *corev1.Container) {
		if len(c.VolumeDevices) > 0 {
			here.child("volumeDevices").forbidden(why)
		}
	})
}

// checkHostNetworkPorts demands that a port of a hostNetwork pod is the same
// inside and outside, if it is given outside at all.
func checkHostNetworkPorts(at spot, containers []corev1.Container) {
	for i := range containers {
		for j, p := range containers[i].Ports {
			if p.HostPort != 0 && p.HostPort != p.ContainerPort {
				at.index(i).child("ports").index(j).child("hostPort").invalid(p.HostPort,
					"must match `containerPort` when `hostNetwork` is true")
			}
		}
	}
}

// sysctlName is a sysctl with dots or slashes between its parts (sysctl.d(5)).
var sysctlName = regexp.MustCompile(`^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$`)

const maxSysctlName = 253

// checkSysctls judges the kernel settings of the pod's own namespaces: one that
// belongs to a namespace of the host would change the host.
func checkSysctls(at spot, spec *corev1.PodSpec) {
	names := seen{}
	for i, s := range spec.SecurityContext.Sysctls {
		name := at.index(i).child("name")
		switch {
		case !name.filled(s.Name):
		case len(s.Name) > maxSysctlName || !sysctlName.MatchString(s.Name):
			name.invalid(s.Name, "must be a sysctl name of at most 253 characters")
		case names.again(s.Name):
			name.duplicate(s.Name)
		}
		switch space, _, _ := sysctl.GetNamespace(s.Name); {
		case spec.HostNetwork && space == sysctl.NetNamespace:
			name.invalid(s.Name, "may not be specified when 'hostNetwork' is true")
		case spec.HostIPC && space == sysctl.IPCNamespace:
			name.invalid(s.Name, "may not be specified when 'hostIPC' is true")
		}
	}
}
