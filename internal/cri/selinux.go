package cri

import (
	"os"
	"slices"
	"strings"
)

// SELinux tells whether the kernel has SELinux, enforcing or not.
func SELinux() bool {
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		return true
	}
	// Not mounted there does not mean that it is off.
	b, err := os.ReadFile("/sys/kernel/security/lsm")
	return err == nil && slices.Contains(strings.Split(strings.TrimSpace(string(b)), ","), "selinux")
}
