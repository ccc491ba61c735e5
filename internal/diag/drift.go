package diag

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Drift is something that the kernel has and that was not asked for, or the
// other way round.
type Drift struct {
	What   string `json:"what"`
	Asked  string `json:"asked"`
	Kernel string `json:"kernel"`
}

// comparison gathers the differences of one container.
type comparison struct {
	in   *Inspector
	pid  int
	a    *Asked
	k    *Kernel
	all  []Drift
	errs []error
}

// compare holds what a container was given against what the kernel has. A
// process may give up rights by itself, so that of them only the bounding set of
// init must be the same; it may also raise its own oom_score_adj, which is shown
// as it is what the OOM killer will go by.
func (in *Inspector) compare(pid int, a *Asked, k *Kernel) ([]Drift, []error) {
	c := &comparison{in: in, pid: pid, a: a, k: k}
	c.cgroup()
	c.limits()
	c.rights()
	c.scores()
	c.namespaces()
	c.mounts()
	return c.all, c.errs
}

func (c *comparison) differs(what, asked, kernel string) {
	if asked != kernel {
		c.all = append(c.all, Drift{what, asked, kernel})
	}
}

func (c *comparison) cgroup() {
	whole, last := cgroupOf(c.a.Cgroup)
	seen := map[string]bool{}
	for controller, got := range c.k.Cgroup.Paths {
		if controller == "unified" && c.k.Cgroup.Mode == "hybrid" && got == "/" {
			continue // runc may leave it alone where it limits nothing
		}
		if (whole != "" && got == whole) || (last != "" && path.Base(got) == last) || (whole == "" && last == "") || seen[got] {
			continue
		}
		seen[got] = true
		c.differs("cgroup of "+controller, c.a.Cgroup, got)
	}
}

func (c *comparison) limits() {
	a, k := c.a.Limits, c.k.Cgroup.Limits
	if c.k.Cgroup.Mode != "v2" {
		number(c, "cpu.shares", a.CPUShares, k.CPUShares)
	}
	if a.CPUQuota != nil && *a.CPUQuota > 0 {
		number(c, "cpu quota (µs)", a.CPUQuota, k.CPUQuota)
		number(c, "cpu period (µs)", a.CPUPeriod, k.CPUPeriod)
	}
	number(c, "memory limit (bytes)", a.MemoryMax, k.MemoryMax)
	number(c, "processes", a.Pids, k.Pids)
	if a.CPUs != "" {
		c.differs("cpus", a.CPUs, k.CPUs)
	}
	if weight, err := strconv.ParseUint(a.Unified["cpu.weight"], 10, 64); err == nil {
		number(c, "cpu.weight", &weight, k.CPUWeight)
	}
}

// number compares a limit that was asked for. The kernel rounds memory down to
// pages.
func number[A int64 | uint64](c *comparison, what string, asked *A, kernel *uint64) {
	if asked == nil || int64(*asked) <= 0 {
		return
	}
	got := "none"
	if kernel != nil {
		if *kernel == uint64(*asked) || (strings.HasPrefix(what, "memory") && *kernel == uint64(*asked)/4096*4096) {
			return
		}
		got = strconv.FormatUint(*kernel, 10)
	}
	c.differs(what, fmt.Sprint(*asked), got)
}

func (c *comparison) rights() {
	asked := slices.Sorted(slices.Values(c.a.Capabilities.Bounding))
	got := slices.Sorted(slices.Values(c.k.Init.Capabilities.Bounding))
	c.differs("capabilities (bounding)", strings.Join(asked, " "), strings.Join(got, " "))
	for _, p := range c.k.Processes {
		if p.Rights == nil {
			continue
		}
		for _, right := range p.Rights.Capabilities.Effective {
			if !slices.Contains(asked, right) {
				c.differs(fmt.Sprintf("capabilities of process %d", p.PID), "no "+right, right)
			}
		}
		if c.a.NoNewPrivs && !p.Rights.NoNewPrivs {
			c.differs(fmt.Sprintf("no_new_privs of process %d", p.PID), "true", "false")
		}
		if c.a.Seccomp == "filter" && p.Rights.Seccomp != "filter" {
			c.differs(fmt.Sprintf("seccomp of process %d", p.PID), "filter", p.Rights.Seccomp)
		}
		// A profile may let a program go over to another one.
		if c.a.AppArmor != "" && p.Rights.AppArmor == "unconfined" {
			c.differs(fmt.Sprintf("AppArmor profile of process %d", p.PID), c.a.AppArmor, p.Rights.AppArmor)
		}
	}
}

func (c *comparison) scores() {
	if c.a.OOMScoreAdj == nil {
		return
	}
	for _, p := range c.k.Processes {
		c.differs(fmt.Sprintf("oom_score_adj of process %d", p.PID), strconv.Itoa(*c.a.OOMScoreAdj), strconv.Itoa(p.OOMScoreAdj))
	}
}

func (c *comparison) namespaces() {
	for kind, got := range c.k.Namespaces {
		asked := c.a.Namespaces[kind]
		what := kind + " namespace"
		switch {
		case asked == "host" && !got.Host && kind != "time":
			c.differs(what, "host", strconv.FormatUint(got.ID, 10))
		case asked == "new" && got.Host:
			c.differs(what, "new", "host")
		case path.IsAbs(asked):
			id, err := namespaceID(asked)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				c.differs(what, asked, strconv.FormatUint(got.ID, 10)+", the pin is gone")
			case err != nil:
				c.errs = append(c.errs, fmt.Errorf("read the %s: %w", what, err))
			case id != got.ID:
				c.differs(what, asked+" ("+strconv.FormatUint(id, 10)+")", strconv.FormatUint(got.ID, 10))
			}
		}
	}
	slices.SortStableFunc(c.all, func(a, b Drift) int { return strings.Compare(a.What, b.What) })
}

func (c *comparison) mounts() {
	for _, m := range c.a.Mounts {
		got, err := mountAt(c.in.Proc, c.pid, m.Destination, c.k.Mounts)
		switch {
		case err != nil:
			c.errs = append(c.errs, fmt.Errorf("look at mount %s: %w", m.Destination, err))
		case got == nil:
			c.differs("mount "+m.Destination, "mounted", "not mounted")
		case m.Type == "cgroup" && got.Type == "tmpfs": // v1: runc leaves the directory of the hierarchies' mounts writable
			c.hierarchies(m, got.Destination)
		case m.ReadOnly && !got.ReadOnly:
			c.differs("mount "+m.Destination, "read-only", "writable")
		case !m.ReadOnly && hasOption(got.Options, "ro") && m.Type == "bind": // not for a file system that is read-only itself
			c.differs("mount "+m.Destination, "writable", "read-only")
		}
	}
	if root, err := mountAt(c.in.Proc, c.pid, "/", c.k.Mounts); err == nil && root != nil && c.a.ReadonlyRootfs && !root.ReadOnly {
		c.differs("root file system", "read-only", "writable")
	}
}

// hierarchies holds the mounts of cgroup v1 against what was asked for as one.
func (c *comparison) hierarchies(asked AskedMount, at string) {
	for _, m := range c.k.Mounts {
		if strings.HasPrefix(m.Destination, at+"/") && asked.ReadOnly && !m.ReadOnly {
			c.differs("mount "+m.Destination, "read-only", "writable")
		}
	}
}
