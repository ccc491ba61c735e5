package diag

import (
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Asked is what the OCI runtime was asked for when the container started.
type Asked struct {
	Args            []string          `json:"args"`
	Cwd             string            `json:"cwd"`
	EnvNames        []string          `json:"envNames"` // the values may be secrets
	Terminal        bool              `json:"terminal,omitempty"`
	UID             uint32            `json:"uid"`
	GID             uint32            `json:"gid"`
	Groups          []uint32          `json:"groups"`
	Capabilities    Capabilities      `json:"capabilities"`
	NoNewPrivs      bool              `json:"noNewPrivileges"`
	Seccomp         string            `json:"seccomp"` // disabled or filter
	AppArmor        string            `json:"appArmorProfile,omitempty"`
	OOMScoreAdj     *int              `json:"oomScoreAdj,omitempty"`
	Cgroup          string            `json:"cgroup"`
	Limits          AskedLimits       `json:"limits"`
	Namespaces      map[string]string `json:"namespaces"` // the path to join, "new", or "host"
	Mounts          []AskedMount      `json:"mounts"`
	ReadonlyRootfs  bool              `json:"readOnlyRootFilesystem"`
	MaskedPaths     []string          `json:"maskedPaths"`
	ReadonlyPaths   []string          `json:"readonlyPaths"`
	RootPropagation string            `json:"rootPropagation,omitempty"`
}

// AskedLimits are those that a spec has fields for; nil is no limit.
type AskedLimits struct {
	CPUShares   *uint64           `json:"cpuShares,omitempty"`
	CPUQuota    *int64            `json:"cpuQuotaMicros,omitempty"`
	CPUPeriod   *uint64           `json:"cpuPeriodMicros,omitempty"`
	CPUs        string            `json:"cpus,omitempty"`
	MemoryNodes string            `json:"memoryNodes,omitempty"`
	MemoryMax   *int64            `json:"memoryMaxBytes,omitempty"`
	SwapMax     *int64            `json:"swapMaxBytes,omitempty"`
	Pids        *int64            `json:"pidsMax,omitempty"`
	Unified     map[string]string `json:"unified,omitempty"` // files of cgroup v2
}

// AskedMount is a mount of the spec.
type AskedMount struct {
	Destination string   `json:"destination"`
	Type        string   `json:"type,omitempty"`
	Source      string   `json:"source,omitempty"`
	ReadOnly    bool     `json:"readOnly"`
	Options     []string `json:"options"`
}

// askedOf reads an OCI spec.
func askedOf(s *specs.Spec) *Asked {
	a := &Asked{Seccomp: seccompModes[0], Namespaces: map[string]string{}, Mounts: []AskedMount{}}
	for _, name := range namespaceKinds {
		a.Namespaces[name] = "host"
	}
	if s.Root != nil {
		a.ReadonlyRootfs = s.Root.Readonly
	}
	if s.Process != nil {
		a.process(s.Process)
	}
	for _, m := range s.Mounts {
		a.Mounts = append(a.Mounts, AskedMount{
			Destination: m.Destination, Type: m.Type, Source: m.Source,
			ReadOnly: slices.Contains(m.Options, "ro") || slices.Contains(m.Options, "rro"), Options: list(m.Options),
		})
	}
	l := s.Linux
	if l == nil {
		return a
	}
	if l.Seccomp != nil {
		a.Seccomp = seccompModes[2]
	}
	a.Cgroup, a.RootPropagation = l.CgroupsPath, l.RootfsPropagation
	a.MaskedPaths, a.ReadonlyPaths = list(l.MaskedPaths), list(l.ReadonlyPaths)
	for _, n := range l.Namespaces {
		a.Namespaces[string(n.Type)] = "new"
		if n.Path != "" {
			a.Namespaces[string(n.Type)] = n.Path
		}
	}
	if l.Resources != nil {
		a.Limits.read(l.Resources)
	}
	return a
}

// list is never nil.
func list[T any](l []T) []T { return append([]T{}, l...) }

func (a *Asked) process(p *specs.Process) {
	a.Args, a.Cwd, a.Terminal, a.NoNewPrivs = list(p.Args), p.Cwd, p.Terminal, p.NoNewPrivileges
	a.UID, a.GID, a.Groups = p.User.UID, p.User.GID, list(p.User.AdditionalGids)
	a.OOMScoreAdj, a.AppArmor = p.OOMScoreAdj, p.ApparmorProfile
	a.EnvNames = []string{}
	for _, e := range p.Env {
		name, _, _ := strings.Cut(e, "=")
		a.EnvNames = append(a.EnvNames, name)
	}
	if c := p.Capabilities; c != nil {
		a.Capabilities = Capabilities{
			Bounding: list(c.Bounding), Effective: list(c.Effective), Permitted: list(c.Permitted),
			Inheritable: list(c.Inheritable), Ambient: list(c.Ambient),
		}
	}
}

func (l *AskedLimits) read(r *specs.LinuxResources) {
	if c := r.CPU; c != nil {
		l.CPUShares, l.CPUQuota, l.CPUPeriod, l.CPUs, l.MemoryNodes = c.Shares, c.Quota, c.Period, c.Cpus, c.Mems
	}
	if m := r.Memory; m != nil {
		l.MemoryMax, l.SwapMax = m.Limit, m.Swap
	}
	if r.Pids != nil {
		l.Pids = r.Pids.Limit
	}
	l.Unified = r.Unified
}
