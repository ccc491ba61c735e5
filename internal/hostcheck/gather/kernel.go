package gather

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/version"

	"nodeagent/internal/cgroups"
	"nodeagent/internal/hostcheck"
)

func (g *gatherer) kernel(context.Context) (see, error) {
	k := &hostcheck.Kernel{MaxUserNS: -1}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("ask for the kernel's release: %w", err)
	}
	k.Release = unix.ByteSliceToString(u.Release[:])
	entries, err := os.ReadDir("/proc/self/ns")
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	for _, e := range entries {
		k.Namespaces = append(k.Namespaces, e.Name())
	}
	k.Seccomp = there("/proc/sys/kernel/seccomp/actions_avail")
	if fd, err := unix.PidfdOpen(os.Getpid(), 0); err == nil {
		k.Pidfd = true
		_ = unix.Close(fd)
	}
	if fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC}); err == nil {
		k.Openat2 = true
		_ = unix.Close(fd)
	}
	release, _, _ := strings.Cut(k.Release, "-")
	v, err := version.ParseGeneric(release)
	k.CgroupKill = err == nil && v.AtLeast(version.MustParseGeneric("5.14"))
	_, err = os.ReadFile("/proc/pressure/memory") // EOPNOTSUPP where it is off
	k.PSI = err == nil
	k.Modules = there("/proc/modules")
	k.ModulesDir = there(filepath.Join("/lib/modules", k.Release))
	if n, err := number("/proc/sys/user/max_user_namespaces"); err == nil {
		k.MaxUserNS = n
	}
	return func(f *hostcheck.Facts) { f.Kernel = k }, nil
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func text(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}

func number(path string) (int, error) {
	s, err := text(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(s)
}

// needed are the capabilities that the daemon cannot do without.
var needed = map[string]uint{
	"CAP_CHOWN": unix.CAP_CHOWN, "CAP_DAC_OVERRIDE": unix.CAP_DAC_OVERRIDE, "CAP_FOWNER": unix.CAP_FOWNER,
	"CAP_KILL": unix.CAP_KILL, "CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN,
}

func (g *gatherer) privilege(context.Context) (see, error) {
	p := &hostcheck.Privilege{Root: os.Geteuid() == 0}
	if !p.Root {
		return nil, errNotRoot
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return nil, fmt.Errorf("ask for own capabilities: %w", err)
	}
	for _, name := range sorted(needed) {
		bit := needed[name]
		if data[bit/32].Effective&(1<<(bit%32)) == 0 {
			p.Lacks = append(p.Lacks, name)
		}
	}
	var err error
	if p.LowestOOMAdj, err = cgroups.ProbeOOMScoreAdj(); err != nil {
		return nil, err
	}
	return func(f *hostcheck.Facts) { f.Privilege = p }, nil
}

// limits are the kernel's limits and tunables.
func (g *gatherer) limits(context.Context) (see, error) {
	l := &hostcheck.Limits{PodPids: g.PodPids}
	var errs []error
	for path, to := range map[string]*int{
		"fs/inotify/max_user_instances": &l.InotifyInstances, "fs/inotify/max_user_watches": &l.InotifyWatches,
		"kernel/pid_max": &l.PIDMax, "kernel/threads-max": &l.ThreadsMax,
	} {
		n, err := number("/proc/sys/" + path)
		*to = n
		errs = append(errs, err)
	}
	files, err := text("/proc/sys/fs/file-max")
	if err == nil {
		l.FileMax, err = strconv.ParseUint(files, 10, 64)
	}
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, fmt.Errorf("read limits: %w", err)
	}
	sysctls := map[string]string{}
	for key := range hostcheck.Sysctls() {
		if v, err := text("/proc/sys/" + strings.ReplaceAll(key, ".", "/")); err == nil {
			sysctls[key] = v
		}
	}
	return func(f *hostcheck.Facts) { f.Limits, f.Sysctls = l, sysctls }, nil
}

// swaps are the first words of /proc/swaps.
func (g *gatherer) swaps(context.Context) (see, error) {
	s, err := text("/proc/swaps")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a kernel without swap
	}
	if err != nil {
		return nil, fmt.Errorf("list swap: %w", err)
	}
	var all []string
	for i, line := range strings.Split(s, "\n") {
		// zram is swap in memory, and no less swap to the kernel and to kubelet.
		if fields := strings.Fields(line); i > 0 && len(fields) > 0 {
			all = append(all, fields[0])
		}
	}
	return func(f *hostcheck.Facts) { f.Swaps = all }, nil
}

// oldestClock is a time before this program was made.
const oldestClock = 2026

func (g *gatherer) node(context.Context) (see, error) {
	n := &hostcheck.Node{Name: g.NodeName}
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return nil, fmt.Errorf("ask for the state of the clock: %w", err)
	}
	n.Unsynced = state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0
	n.ClockInPast = now().Year() < oldestClock
	n.MachineID, _ = text("/etc/machine-id")
	return func(f *hostcheck.Facts) { f.Node = n }, nil
}
