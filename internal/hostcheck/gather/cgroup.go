package gather

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"

	"nodeagent/internal/cgroups"
	"nodeagent/internal/hostcheck"
)

const cgroupRoot = "/sys/fs/cgroup"

func (g *gatherer) tree() (*cgroups.Tree, error) {
	return cgroups.New(cgroups.Config{Root: g.Host.CgroupRoot, Driver: g.Host.CgroupDriver})
}

func (g *gatherer) cgroups(context.Context) (see, error) {
	c := &hostcheck.Cgroups{}
	c.PID1, _ = text("/proc/1/comm")
	tree, err := g.tree()
	if err != nil {
		// Nothing is mounted, the only thing that New may find.
		c.Mode = "none"
		return func(f *hostcheck.Facts) { f.Cgroups = c }, nil
	}
	switch {
	case tree.V2():
		c.Mode = "v2"
	case there(filepath.Join(cgroupRoot, "unified", "cgroup.controllers")):
		c.Mode = "hybrid"
	default:
		c.Mode = "v1"
	}
	c.Driver, c.Missing, c.Swap = tree.Driver(), tree.Missing(), tree.Swap()
	io := "blkio"
	if tree.V2() {
		io = "io"
	}
	for _, name := range []string{"hugetlb", io} {
		if !tree.Has(name) {
			c.Optional = append(c.Optional, name)
		}
	}
	if tree.V2() {
		c.Namespaced = there(cgroupRoot + "/cgroup.type") // the kernel's own root has none
		c.Undelegated = undelegated(path.Dir(tree.Kubepods()))
	}
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return nil, fmt.Errorf("list cgroup mounts: %w", err)
	}
	for _, m := range mounts {
		if strings.HasPrefix(m.Mountpoint, cgroupRoot) && slices.Contains(strings.Split(m.Options, ","), "ro") {
			c.ReadOnly = true
		}
	}
	c.Disabled, c.Elsewhere = controllersOf()
	return func(f *hostcheck.Facts) { f.Cgroups = c }, nil
}

// controllersOf finds controllers that were switched off at boot, and those that
// a v1 hierarchy holds. Kernels that can do v2 only list some controllers here
// no more, so that one that is missing here means nothing.
func controllersOf() (disabled, v1 []string) {
	s, _ := text("/proc/cgroups")
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) != 4 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if f[3] == "0" {
			disabled = append(disabled, f[0])
		}
		if f[1] != "0" {
			v1 = append(v1, f[0])
		}
	}
	cmdline, _ := text("/proc/cmdline")
	for _, word := range strings.Fields(cmdline) {
		if names, ok := strings.CutPrefix(word, "cgroup_disable="); ok {
			for _, n := range strings.Split(names, ",") {
				if !slices.Contains(disabled, n) {
					disabled = append(disabled, n)
				}
			}
		}
	}
	return disabled, v1
}

// undelegated finds cgroups from the root to the one given that have processes
// of their own and do not hand down what the root has: v2 forbids to change that.
func undelegated(to string) []hostcheck.Undelegated {
	var all []hostcheck.Undelegated
	root, _ := text(cgroupRoot + "/cgroup.controllers")
	at := "/"
	for _, name := range strings.Split(strings.Trim(to, "/"), "/") {
		if name == "" {
			break
		}
		at = path.Join(at, name)
		dir := filepath.Join(cgroupRoot, at)
		on, err := text(filepath.Join(dir, "cgroup.subtree_control"))
		if err != nil {
			break // the daemon makes it
		}
		procs, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		var lacks []string
		for _, c := range strings.Fields(root) {
			if slices.Contains([]string{"cpu", "cpuset", "memory", "pids"}, c) && !slices.Contains(strings.Fields(on), c) {
				lacks = append(lacks, c)
			}
		}
		if n := len(strings.Fields(string(procs))); n > 0 && len(lacks) > 0 {
			all = append(all, hostcheck.Undelegated{Cgroup: at, Controllers: lacks, Processes: n})
		}
	}
	return all
}
