package pod

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/node/util/sysctl"
)

// ReasonSysctlForbidden is the reason of a pod that asks for a sysctl which
// nobody allowed.
const ReasonSysctlForbidden = "SysctlForbidden"

// safeSysctl tells whether a sysctl belongs to the pod alone and can do no harm
// to others (kubelet: pkg/kubelet/sysctl/safe_sysctls.go).
func safeSysctl(name string) bool {
	switch name {
	case "kernel.shm_rmid_forced",
		"net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports",
		"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range",
		"net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
		"net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_rmem", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_wmem":
		return true
	}
	return false
}

// admitSysctls refuses every sysctl that is neither safe nor allowed.
func admitSysctls(p *corev1.Pod, unsafe []string) *Rejection {
	if p.Spec.SecurityContext == nil {
		return nil
	}
	for _, s := range p.Spec.SecurityContext.Sysctls {
		name := sysctl.NormalizeName(s.Name)
		allowed := slices.ContainsFunc(unsafe, func(pattern string) bool {
			begin, open := strings.CutSuffix(sysctl.NormalizeName(pattern), "*")
			return name == begin || open && strings.HasPrefix(name, begin)
		})
		if !allowed && !safeSysctl(name) {
			return &Rejection{Reason: ReasonSysctlForbidden, Message: fmt.Sprintf("forbidden sysctl: %q not allowlisted; add it to allowedUnsafeSysctls to run the pod here", name)}
		}
	}
	return nil
}
