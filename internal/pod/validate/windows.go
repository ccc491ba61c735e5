package validate

import (
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// checkOS judges the OS that the pod names, and that it asks for nothing which
// only another OS has.
func checkOS(at spot, spec *corev1.PodSpec) {
	checkHostProcess(at, spec)
	if spec.OS == nil {
		return
	}
	someOf(at.child("os").child("name"), spec.OS.Name, corev1.Linux, corev1.Windows)
	switch spec.OS.Name {
	case corev1.Linux:
		onlyLinux(at, spec)
	case corev1.Windows:
		onlyWindows(at, spec)
	}
}

func onlyLinux(at spot, spec *corev1.PodSpec) {
	const why = "windows options cannot be set for a linux pod"
	if sc := spec.SecurityContext; sc != nil && sc.WindowsOptions != nil {
		at.child("securityContext").child("windowsOptions").forbidden(why)
	}
	everyContainer(at, spec, func(here spot, c *corev1.Container) {
		if sc := c.SecurityContext; sc != nil && sc.WindowsOptions != nil {
			here.child("securityContext").child("windowsOptions").forbidden(why)
		}
	})
}

func onlyWindows(at spot, spec *corev1.PodSpec) {
	forbidSet(at, map[string]bool{
		"hostUsers": spec.HostUsers != nil, "hostPID": spec.HostPID, "hostIPC": spec.HostIPC,
		"shareProcessNamespace": spec.ShareProcessNamespace != nil,
	})
	if sc := spec.SecurityContext; sc != nil {
		forbidSet(at.child("securityContext"), map[string]bool{
			"appArmorProfile": sc.AppArmorProfile != nil, "seLinuxOptions": sc.SELinuxOptions != nil,
			"seccompProfile": sc.SeccompProfile != nil, "fsGroup": sc.FSGroup != nil,
			"fsGroupChangePolicy": sc.FSGroupChangePolicy != nil, "sysctls": len(sc.Sysctls) > 0,
			"runAsUser": sc.RunAsUser != nil, "runAsGroup": sc.RunAsGroup != nil,
			"supplementalGroups":       sc.SupplementalGroups != nil,
			"supplementalGroupsPolicy": sc.SupplementalGroupsPolicy != nil,
			"seLinuxChangePolicy":      sc.SELinuxChangePolicy != nil,
		})
	}
	everyContainer(at, spec, func(here spot, c *corev1.Container) {
		if sc := c.SecurityContext; sc != nil {
			forbidSet(here.child("securityContext"), map[string]bool{
				"appArmorProfile": sc.AppArmorProfile != nil, "seLinuxOptions": sc.SELinuxOptions != nil,
				"seccompProfile": sc.SeccompProfile != nil, "capabilities": sc.Capabilities != nil,
				"readOnlyRootFilesystem": sc.ReadOnlyRootFilesystem != nil, "privileged": sc.Privileged != nil,
				"allowPrivilegeEscalation": sc.AllowPrivilegeEscalation != nil, "procMount": sc.ProcMount != nil,
				"runAsUser": sc.RunAsUser != nil, "runAsGroup": sc.RunAsGroup != nil,
			})
		}
	})
}

func forbidSet(at spot, fields map[string]bool) {
	for name, set := range fields {
		if set {
			at.child(name).forbidden("cannot be set for a windows pod")
		}
	}
}

// checkHostProcess demands that all containers are host processes or none is.
func checkHostProcess(at spot, spec *corev1.PodSpec) {
	var pod *bool
	if sc := spec.SecurityContext; sc != nil && sc.WindowsOptions != nil {
		pod = sc.WindowsOptions.HostProcess
	}
	all, host := 0, 0
	everyContainer(at, spec, func(here spot, c *corev1.Container) {
		all++
		own := pod
		if sc := c.SecurityContext; sc != nil && sc.WindowsOptions != nil && sc.WindowsOptions.HostProcess != nil {
			own = sc.WindowsOptions.HostProcess
			if pod != nil && *pod != *own {
				here.child("securityContext").child("windowsOptions").child("hostProcess").invalid(*own,
					"must be the same as the pod's hostProcess where both are given")
			}
		}
		if isTrue(own) {
			host++
		}
	})
	if host > 0 && host != all {
		at.invalid("", "if one container is a hostProcess container, all must be")
	}
	if host > 0 && !spec.HostNetwork {
		at.child("hostNetwork").invalid(false, "must be true if the pod has hostProcess containers")
	}
}

// Bounds of a Windows user name, DOMAIN\USER, in bytes.
const (
	maxGMSASpec      = 64 << 10
	maxWindowsDomain = 255
	maxWindowsUser   = 104
)

var (
	controlChars = regexp.MustCompile(`[[:cntrl:]]`)
	netBIOSName  = regexp.MustCompile(`^[^\\/:\*\?"<>|\.][^\\/:\*\?"<>|]{0,14}$`)
	dnsName      = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$`)
)

// checkWindowsOptions judges what only Windows nodes act on. The credential
// specification is never quoted.
func checkWindowsOptions(at spot, o *corev1.WindowsSecurityContextOptions) {
	if o == nil {
		return
	}
	if n := o.GMSACredentialSpecName; n != nil {
		at.child("gmsaCredentialSpecName").format(*n, validation.IsDNS1123Subdomain(*n))
	}
	if s := o.GMSACredentialSpec; s != nil {
		if here := at.child("gmsaCredentialSpec"); here.filled(*s) && len(*s) > maxGMSASpec {
			here.tooLong(maxGMSASpec)
		}
	}
	if u := o.RunAsUserName; u != nil {
		checkWindowsUser(at.child("runAsUserName"), *u)
	}
}

func checkWindowsUser(at spot, name string) {
	if !at.filled(name) {
		return
	}
	if controlChars.MatchString(name) {
		at.invalid(name, "cannot contain control characters")
		return
	}
	domain, user, has := strings.Cut(name, `\`)
	if !has {
		domain, user = "", name
	}
	if has && (len(domain) > maxWindowsDomain || !netBIOSName.MatchString(domain) && !dnsName.MatchString(domain)) {
		at.invalid(name, "the domain must be a NetBIOS or DNS name of at most 255 characters")
	}
	switch {
	case user == "" || len(user) > maxWindowsUser:
		at.invalid(name, "the user must have 1 to 104 characters")
	case strings.Trim(user, ". ") == "":
		at.invalid(name, "the user cannot contain only periods or spaces")
	case strings.ContainsAny(user, `"/\:;|=,+*?<>@[]`):
		at.invalid(name, `the user cannot contain any of "/\:;|=,+*?<>@[]`)
	}
}
