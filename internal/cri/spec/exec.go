package spec

import (
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ExecProcess returns the process of an exec in a container: that of the
// container's spec with the arguments of the exec. It has the container's user,
// capabilities, seccomp and AppArmor profile, and no more.
func ExecProcess(of *specs.Process, args []string, tty bool) (*specs.Process, error) {
	if of == nil {
		return nil, refuse("exec: the container has no process")
	}
	if len(args) == 0 || args[0] == "" {
		return nil, refuse("exec: no command specified")
	}
	for _, a := range args {
		if strings.IndexByte(a, 0) >= 0 {
			return nil, refuse("exec: an argument holds a NUL byte")
		}
	}
	p := *of
	p.Args = slices.Clone(args)
	p.Terminal = tty
	p.ConsoleSize = nil
	p.CommandLine = ""
	p.User = copyUser(of.User)
	p.OOMScoreAdj = copyOf(of.OOMScoreAdj)
	p.Rlimits = slices.Clone(of.Rlimits)
	p.Env = slices.Clone(of.Env)
	if tty && !slices.ContainsFunc(p.Env, func(kv string) bool { return strings.HasPrefix(kv, "TERM=") }) {
		p.Env = append(p.Env, "TERM=xterm")
	}
	if c := of.Capabilities; c != nil {
		p.Capabilities = &specs.LinuxCapabilities{
			Bounding:  slices.Clone(c.Bounding),
			Permitted: slices.Clone(c.Permitted),
			Effective: slices.Clone(c.Effective),
		}
	}
	return &p, nil
}
