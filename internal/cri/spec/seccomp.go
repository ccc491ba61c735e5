package spec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxProfile bounds a seccomp profile, which is read whole.
const maxProfile = 1 << 20

// setSeccomp sets the profile that the config asks for; none asked for means
// RuntimeDefault. Without a profile are only: Unconfined, written out, and
// privileged containers, as with CRI.
func setSeccomp(in Input, s *specs.Spec) error {
	sec := in.Container.GetLinux().GetSecurityContext()
	want := sec.GetSeccomp()
	if sec.GetPrivileged() {
		return nil
	}
	if want.GetProfileType() != runtimeapi.SecurityProfile_Localhost && want.GetLocalhostRef() != "" {
		return refuse("seccomp: a localhost profile is named, but the type is %s", want.GetProfileType())
	}
	if want.GetProfileType() == runtimeapi.SecurityProfile_Unconfined {
		return nil
	}
	if !in.Host.Seccomp {
		return refuse("seccomp: this kernel has no seccomp filters; only seccompProfile Unconfined can run")
	}
	switch want.GetProfileType() {
	case runtimeapi.SecurityProfile_RuntimeDefault:
		s.Linux.Seccomp = seccomp.DefaultProfile(s)
		withoutABIs(s.Linux.Seccomp, in.Host.LackedABIs)
		return nil
	case runtimeapi.SecurityProfile_Localhost:
		if in.LocalhostProfile == nil {
			return refuse("seccomp: localhost profile %q is not loaded", want.GetLocalhostRef())
		}
		profile, err := copyProfile(in.LocalhostProfile)
		s.Linux.Seccomp = profile
		return err
	}
	return refuse("seccomp: profile type %d is unknown", want.GetProfileType())
}

// copyProfile copies a profile by the way of its file format, which reaches
// every pointer in it.
func copyProfile(p *specs.LinuxSeccomp) (*specs.LinuxSeccomp, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return nil, refuse("seccomp: copy localhost profile: %v", err)
	}
	return decodeProfile(b)
}

// LoadSeccomp reads the Localhost profile ref (a pod's localhostProfile) below
// root (kubelet's <root-dir>/seccomp). An empty, absolute or climbing name, a
// link that leads out of root, and a file that is no profile are errors: never
// "no profile" (CVE-2023-2431).
func LoadSeccomp(root, ref string) (*specs.LinuxSeccomp, error) {
	if ref == "" || !filepath.IsLocal(ref) || strings.IndexByte(ref, 0) >= 0 {
		return nil, refuse("seccomp: localhost profile %q is not a relative path below the profile directory", ref)
	}
	b, err := readBeneath(root, ref, unix.RESOLVE_BENEATH, maxProfile)
	if err != nil {
		return nil, fmt.Errorf("seccomp: read localhost profile: %w", err)
	}
	p, err := decodeProfile(b)
	if err != nil {
		return nil, refuse("seccomp: localhost profile %q: %v", ref, err)
	}
	return p, nil
}

func decodeProfile(b []byte) (*specs.LinuxSeccomp, error) {
	var p specs.LinuxSeccomp
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&p); err != nil {
		return nil, refuse("not a seccomp profile: %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, refuse("not a seccomp profile: more after its end")
	}
	// An object without the one field that every profile has, as {} or null,
	// would be no filter at all.
	if p.DefaultAction == "" {
		return nil, refuse("not a seccomp profile: it has no defaultAction")
	}
	return &p, nil
}
