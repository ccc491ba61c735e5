package gather

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"nodeagent/internal/cgroups"
	"nodeagent/internal/hostcheck"
)

// agentNames are programs that run pods, by the name of their process.
var agentNames = []string{"kubelet", "k3s", "k3s-server", "k3s-agent", "rke2", "kubelite", "k0s"}

// agents finds other agents. Who names a process so must be root and outside of
// any container: a pod can name its processes as it likes.
func (g *gatherer) agents(context.Context) (see, error) {
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	own, _ := os.Readlink("/proc/self/ns/mnt")
	var all []hostcheck.Process
	for _, pid := range pids {
		dir := filepath.Join("/proc", strconv.Itoa(pid))
		name := nameOf(dir)
		if !slices.Contains(agentNames, name) {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil || st.Uid != 0 {
			continue
		}
		if mnt, err := os.Readlink(dir + "/ns/mnt"); err == nil && mnt != own || err != nil && contained(dir) {
			continue
		}
		cmdline, _ := os.ReadFile(dir + "/cmdline")
		all = append(all, hostcheck.Process{PID: pid, Name: name, RootDir: flag(cmdline, "--root-dir", "/var/lib/kubelet"), CgroupRoot: flag(cmdline, "--cgroup-root", "/")})
	}
	return func(f *hostcheck.Facts) { f.Agents = all }, nil
}

// nameOf is the program's file name, or where that cannot be seen the process's.
func nameOf(dir string) string {
	if exe, err := os.Readlink(dir + "/exe"); err == nil {
		return strings.TrimSuffix(filepath.Base(exe), " (deleted)")
	}
	comm, _ := text(dir + "/comm")
	return comm
}

// contained tells by its cgroup that a process is in a container.
func contained(dir string) bool {
	b, _ := os.ReadFile(dir + "/cgroup")
	return slices.ContainsFunc([]string{"kubepods", "docker", "libpod", "lxc"}, func(s string) bool { return bytes.Contains(b, []byte(s)) })
}

// flag is the value of a flag on a command line.
func flag(cmdline []byte, name, otherwise string) string {
	args := strings.Split(string(cmdline), "\x00")
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, name+"="); ok {
			otherwise = v
		} else if a == name && i+1 < len(args) {
			otherwise = args[i+1]
		}
	}
	return filepath.Clean(otherwise)
}

func processes() ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var all []int
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			all = append(all, pid)
		}
	}
	slices.Sort(all)
	return all, nil
}

// strangers finds pods in our cgroups and directories that are not ours.
func (g *gatherer) strangers(ctx context.Context) (see, error) {
	var own map[string]bool
	var errs []error
	if g.Own != nil {
		err := errors.New("containerd is not there")
		if there(g.Containerd) {
			own, err = g.Own(ctx)
		}
		if err != nil {
			// Without the records a pod is a stranger only if something else runs it.
			errs = append(errs, fmt.Errorf("which pods are ours could not be asked: %w", err))
		}
	}
	var all []hostcheck.PodGroup
	known := map[string]bool{}
	for _, tree := range g.trees() {
		pods, err := tree.Pods(ctx)
		errs = append(errs, err)
		for _, p := range pods {
			uid := string(p.UID)
			// In the other driver's tree nothing is ours, but the directories are
			// the same ones.
			if own[uid] || known[uid] || !tree.ours && !there(filepath.Join(g.PodsDir, uid)) {
				continue
			}
			if by := g.runBy(p.Path); by != "" {
				known[uid] = true
				all = append(all, hostcheck.PodGroup{UID: uid, Where: p.Path, Runtime: by})
			}
		}
	}
	if own != nil {
		left, err := g.leftDirs(own, known)
		errs = append(errs, err)
		all = append(all, left...)
	}
	return func(f *hostcheck.Facts) { f.Strangers = all }, errors.Join(errs...)
}

// podTree is a tree of pods' cgroups; ours is the one that the daemon works in.
type podTree struct {
	*cgroups.Tree
	ours bool
}

// trees are those of both drivers, the daemon's first.
func (g *gatherer) trees() []podTree {
	mine, err := g.tree()
	if err != nil {
		return nil
	}
	all := []podTree{{mine, true}}
	other := map[string]string{cgroups.Systemd: cgroups.Cgroupfs, cgroups.Cgroupfs: cgroups.Systemd}[mine.Driver()]
	if t, err := cgroups.New(cgroups.Config{Root: g.Host.CgroupRoot, Driver: other}); err == nil {
		all = append(all, podTree{t, false})
	}
	return all
}

// runBy names the foreign runtime below which processes of a pod's cgroup run;
// "" if there is none: nobody is there, it is ours, or its runtime has died.
func (g *gatherer) runBy(cgroup string) string {
	for _, pid := range members(cgroup) {
		st, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		parent := parentOf(string(st))
		name := ""
		if parent > 1 {
			name = nameOf(fmt.Sprintf("/proc/%d", parent))
		}
		if g.foreign(name) {
			return name
		}
	}
	return ""
}

// foreign tells whether a program is a container runtime's that is not ours.
func (g *gatherer) foreign(name string) bool {
	if name == shimName(g.Host.Shim) {
		return false
	}
	return slices.ContainsFunc([]string{"containerd-shim", "conmon", "crio", "docker"}, func(p string) bool { return strings.HasPrefix(name, p) })
}

// shimName is the program of a runtime's name: io.containerd.runc.v2 is
// containerd-shim-runc-v2.
func shimName(runtime string) string {
	if filepath.IsAbs(runtime) {
		return filepath.Base(runtime)
	}
	parts := strings.Split(runtime, ".")
	if len(parts) < 2 {
		return ""
	}
	return fmt.Sprintf("containerd-shim-%s-%s", parts[len(parts)-2], parts[len(parts)-1])
}

// parentOf reads the parent's pid of /proc/PID/stat; the name before it may hold
// anything.
func parentOf(stat string) int {
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(f) < 2 {
		return 0
	}
	pid, _ := strconv.Atoi(f[1])
	return pid
}

// members are the processes of a cgroup and those below it, in whichever
// hierarchy has it.
func members(cgroup string) []int {
	var all []int
	roots, _ := filepath.Glob(cgroupRoot + "/*")
	for _, root := range append(roots, cgroupRoot) {
		_ = filepath.WalkDir(filepath.Join(root, cgroup), func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.Name() == "cgroup.procs" {
				b, _ := os.ReadFile(path)
				for _, word := range strings.Fields(string(b)) {
					if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
						all = append(all, pid)
					}
				}
			}
			return nil
		})
		if len(all) > 0 {
			break
		}
	}
	return all
}

// leftDirs are directories of pods that are nobody's, with what is mounted there.
func (g *gatherer) leftDirs(own, known map[string]bool) ([]hostcheck.PodGroup, error) {
	entries, err := os.ReadDir(g.PodsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list pods' directories: %w", err)
	}
	mounts := map[string]int{}
	if _, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		if rest, ok := strings.CutPrefix(m.Mountpoint, g.PodsDir+"/"); ok {
			uid, _, _ := strings.Cut(rest, "/")
			mounts[uid]++
		}
		return true, false
	}); err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var all []hostcheck.PodGroup
	for _, e := range entries {
		if uid := e.Name(); !own[uid] && !known[uid] && mounts[uid] > 0 {
			all = append(all, hostcheck.PodGroup{UID: uid, Where: filepath.Join(g.PodsDir, uid), Mounts: mounts[uid]})
		}
	}
	return all, nil
}
