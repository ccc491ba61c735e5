package spec

import (
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/pkg/cap"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// defaultCaps are what a container has that neither adds nor drops: the set
// that Docker, containerd and CRI-O share.
var defaultCaps = [...]string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER",
	"CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE",
	"CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP",
	"CAP_SETUID", "CAP_SYS_CHROOT",
}

// setCapabilities sets bounding, permitted and effective. Inheritable and
// ambient stay empty always: with inheritable ones a binary with file
// capabilities would raise itself (CVE-2022-24769).
func setCapabilities(in Input, s *specs.Spec) error {
	caps, err := capabilities(in)
	if err != nil {
		return err
	}
	s.Process.Capabilities = &specs.LinuxCapabilities{
		Bounding:  caps,
		Permitted: slices.Clone(caps),
		Effective: slices.Clone(caps),
	}
	return nil
}

func capabilities(in Input) ([]string, error) {
	sec := in.Container.GetLinux().GetSecurityContext()
	given := in.Host.Capabilities
	if given == nil {
		given = cap.Known()
	}
	has := map[string]bool{}
	grant := func(names []string) {
		for _, c := range names {
			has[c] = slices.Contains(given, c)
		}
	}
	if sec.GetPrivileged() {
		grant(given)
		return granted(has), nil
	}
	add, drop := sec.GetCapabilities().GetAddCapabilities(), sec.GetCapabilities().GetDropCapabilities()
	grant(defaultCaps[:])
	// ALL first, so that single ones can be taken out of it, or left with none.
	if slices.ContainsFunc(add, isAll) {
		grant(given)
	}
	if slices.ContainsFunc(drop, isAll) {
		clear(has)
	}
	for _, name := range add {
		c := capName(name)
		switch {
		case isAll(name):
		case !slices.Contains(cap.Known(), c):
			return nil, refuse("capability %q does not exist", name)
		case !slices.Contains(given, c):
			return nil, refuse("capability %q cannot be given: this node does not have it", name)
		default:
			has[c] = true
		}
	}
	for _, name := range drop {
		delete(has, capName(name))
	}
	return granted(has), nil
}

func granted(has map[string]bool) []string {
	out := make([]string, 0, len(has))
	for c, ok := range has {
		if ok {
			out = append(out, c)
		}
	}
	slices.Sort(out)
	return out
}

func isAll(name string) bool { return capName(name) == "CAP_ALL" }

// capName is the kernel's name of a capability; Kubernetes leaves CAP_ out.
func capName(name string) string {
	return "CAP_" + strings.TrimPrefix(strings.ToUpper(name), "CAP_")
}
