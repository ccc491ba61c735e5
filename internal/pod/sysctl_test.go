package pod

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestAdmitSysctls(t *testing.T) {
	for _, c := range []struct {
		name   string
		unsafe []string
		ok     bool
	}{
		{"net.ipv4.tcp_syncookies", nil, true},
		{"net/ipv4/tcp_syncookies", nil, true},
		{"net.ipv4.conf.all.route_localnet", nil, false},
		{"kernel.shmmax", nil, false},
		{"kernel.shmmax", []string{"kernel.shm*"}, true},
		{"kernel.msgmax", []string{"kernel.shm*", "kernel.sem"}, false},
		{"kernel.sem", []string{"kernel.shm*", "kernel.sem"}, true},
		{"kernel.sems", []string{"kernel.sem"}, false},
	} {
		p := testPod(corev1.RestartPolicyAlways, "", "a")
		p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: c.name, Value: "1"}}}
		r := Admit(p, Allowed{UnsafeSysctls: c.unsafe})
		if (r == nil) != c.ok || r != nil && r.Reason != ReasonSysctlForbidden {
			t.Errorf("sysctl %s with %v allowed: %+v, want admitted: %v", c.name, c.unsafe, r, c.ok)
		}
	}
}
