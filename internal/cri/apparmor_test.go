package cri

import (
	"errors"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestProfileWithoutAppArmor: where no profile can be enforced, a container that
// names one does not start, and one that names none does, without.
func TestProfileWithoutAppArmor(t *testing.T) {
	a := &armor{lacking: "there is none"}
	for kind, ok := range map[runtimeapi.SecurityProfile_ProfileType]bool{
		runtimeapi.SecurityProfile_Unconfined: true, runtimeapi.SecurityProfile_RuntimeDefault: false, runtimeapi.SecurityProfile_Localhost: false,
	} {
		sec := &runtimeapi.LinuxContainerSecurityContext{Apparmor: &runtimeapi.SecurityProfile{ProfileType: kind, LocalhostRef: "x"}}
		profile, err := a.profileOf(t.Context(), sec)
		var config interface{ ConfigError() bool }
		if (err == nil) != ok || profile != "" || err != nil && (!errors.As(err, &config) || !strings.Contains(err.Error(), a.lacking)) {
			t.Errorf("%s: %q, %v", kind, profile, err)
		}
	}
	if profile, err := a.profileOf(t.Context(), &runtimeapi.LinuxContainerSecurityContext{}); profile != "" || err != nil {
		t.Errorf("no wish: %q, %v", profile, err)
	}
}

// TestProfileWithAppArmor: a privileged container has only a profile that it
// names, and a name that is none is refused before the kernel is asked.
func TestProfileWithAppArmor(t *testing.T) {
	a := &armor{}
	if profile, err := a.profileOf(t.Context(), &runtimeapi.LinuxContainerSecurityContext{Privileged: true}); profile != "" || err != nil {
		t.Errorf("privileged: %q, %v", profile, err)
	}
	for _, name := range []string{"", "a\nb", "a\x00"} {
		sec := &runtimeapi.LinuxContainerSecurityContext{Apparmor: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: name}}
		if profile, err := a.profileOf(t.Context(), sec); err == nil || !strings.Contains(err.Error(), "not valid") {
			t.Errorf("%q: %q, %v", name, profile, err)
		}
	}
}
