package cri

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/contrib/apparmor"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// armorDefault is the profile of containers that name none. It has the name that
// containerd's CRI plugin uses, so that what an administrator allows to it holds
// here, too.
const armorDefault = "cri-containerd.apparmor.d"

const (
	armorEnabled  = "/sys/module/apparmor/parameters/enabled"
	armorProfiles = "/sys/kernel/security/apparmor/profiles"
)

// NoAppArmor says why no AppArmor profile can be enforced on this host; "" where
// they can.
func NoAppArmor() string {
	if !kernelHasAppArmor() {
		return "AppArmor is not enabled on the host"
	}
	if _, err := os.Stat(armorProfiles); err != nil {
		return "securityfs is not mounted at /sys/kernel/security"
	}
	if _, err := exec.LookPath(armorParser); err != nil {
		return armorParser + " is not installed"
	}
	return ""
}

func kernelHasAppArmor() bool {
	b, err := os.ReadFile(armorEnabled)
	return err == nil && bytes.HasPrefix(b, []byte("Y"))
}

const armorParser = "apparmor_parser"

// armor owns the default AppArmor profile: that it is loaded when a container is
// to have it.
type armor struct {
	loading sync.Mutex // one parser at a time
	lacking string     // why there is no AppArmor here
}

// profileOf names the profile that a container gets; "" is none. Without a wish
// it is the default one where the host has AppArmor (as with CRI), and none where
// it has not. A privileged container has only what it names itself.
func (a *armor) profileOf(ctx context.Context, sec *runtimeapi.LinuxContainerSecurityContext) (string, error) {
	want := sec.GetApparmor()
	kind := want.GetProfileType()
	switch {
	case want != nil && kind == runtimeapi.SecurityProfile_Unconfined, want == nil && a.lacking != "":
		return "", nil
	case a.lacking != "":
		return "", &configError{fmt.Errorf("AppArmor profile of type %s: %s", kind, a.lacking)}
	case want != nil && kind == runtimeapi.SecurityProfile_Localhost:
		return a.local(want.GetLocalhostRef())
	case sec.GetPrivileged():
		return "", nil
	}
	return armorDefault, a.load(ctx)
}

// local demands that the profile is loaded: runc would start the container and
// then fail, or an older one not confine it at all.
func (a *armor) local(name string) (string, error) {
	if name == "" || strings.ContainsAny(name, "\x00\n") {
		return "", &configError{fmt.Errorf("AppArmor profile name %q is not valid", name)}
	}
	switch there, err := profileLoaded(name); {
	case err != nil:
		return "", err
	case !there:
		return "", &configError{fmt.Errorf("AppArmor profile %q is not loaded on this node; load it with apparmor_parser", name)}
	}
	return name, nil
}

// load loads the default profile unless it is there. Somebody may unload it at
// any time, so it is looked for at each start.
func (a *armor) load(ctx context.Context) error {
	a.loading.Lock()
	defer a.loading.Unlock()
	if there, err := profileLoaded(armorDefault); there || err != nil {
		return err
	}
	text, err := apparmor.DumpDefaultProfile(armorDefault)
	if err != nil {
		return fmt.Errorf("make the default AppArmor profile: %w", err)
	}
	cmd := exec.CommandContext(ctx, armorParser, "--skip-cache", "--replace")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("load the default AppArmor profile: %w: %s", err, strings.TrimSpace(string(out[:min(len(out), 512)])))
	}
	return nil
}

// profileLoaded looks into the kernel's list.
func profileLoaded(name string) (bool, error) {
	list, err := os.ReadFile(armorProfiles)
	if err != nil {
		return false, fmt.Errorf("read the list of AppArmor profiles: %w", err)
	}
	return profileListed(list, name), nil
}

// profileListed knows the lines of the list: "name (mode)", where the name may
// hold spaces.
func profileListed(list []byte, name string) bool {
	for line := range strings.Lines(string(list)) {
		if i := strings.LastIndex(line, " ("); i >= 0 && line[:i] == name {
			return true
		}
	}
	return false
}

// configError is what no retry mends without a change of the pod or the node.
type configError struct{ error }

func (*configError) ConfigError() bool { return true }

func (e *configError) Unwrap() error { return errors.Unwrap(e.error) }
