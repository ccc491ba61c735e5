package cri

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/failpoint"
)

const shmSize = 64 << 20 // bytes, as containerd's CRI plugin gives

type nsOptions struct{ network, ipc, pid runtimeapi.NamespaceMode }

func namespacesOf(config *runtimeapi.PodSandboxConfig) nsOptions {
	o := config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	return nsOptions{network: o.GetNetwork(), ipc: o.GetIpc(), pid: o.GetPid()}
}

func (o nsOptions) hostNetwork() bool { return o.network == runtimeapi.NamespaceMode_NODE }
func (o nsOptions) hostIPC() bool     { return o.ipc == runtimeapi.NamespaceMode_NODE }
func (o nsOptions) sharePID() bool    { return o.pid == runtimeapi.NamespaceMode_POD }

// pins says which namespaces to make and where to keep them.
type pins struct {
	net, ipc, uts, shm string // paths; "" for the host's own
	pid                string // with shareProcessNamespace; pinned by startInit
	hostname           string
	sysctls            map[string]string
}

func (n *Native) pinsOf(s *sandbox) pins {
	o := namespacesOf(s.config)
	dir := n.nsDir(s.id)
	p := pins{hostname: s.config.GetHostname(), sysctls: s.config.GetLinux().GetSysctls()}
	if !o.hostNetwork() {
		// A pod on the host's network has the host's name too.
		p.net, p.uts = s.netns, filepath.Join(dir, "uts")
	}
	if o.sharePID() {
		p.pid = n.pidPin(s)
	}
	if !o.hostIPC() {
		p.ipc, p.shm = filepath.Join(dir, "ipc"), filepath.Join(dir, "shm")
	}
	return p
}

func (p pins) flags() (flags int) {
	if p.net != "" {
		flags |= unix.CLONE_NEWNET
	}
	if p.ipc != "" {
		flags |= unix.CLONE_NEWIPC
	}
	if p.uts != "" {
		flags |= unix.CLONE_NEWUTS
	}
	return flags
}

// files are the mount points of the namespaces, by their names in /proc.
func (p pins) files() map[string]string {
	out := map[string]string{}
	for name, path := range map[string]string{"net": p.net, "ipc": p.ipc, "uts": p.uts} {
		if path != "" {
			out[name] = path
		}
	}
	return out
}

// make creates and pins everything. On failure the caller calls release.
func (p pins) make() error {
	if err := p.checkSysctls(); err != nil {
		return err
	}
	if err := failpoint.At(failpoint.CRINamespacesBefore); err != nil {
		return err
	}
	if p.flags() != 0 {
		if err := <-onDoomedThread(p.makeHere); err != nil {
			return err
		}
	}
	if err := p.mountShm(); err != nil {
		return err
	}
	return failpoint.At(failpoint.CRINamespacesAfter)
}

// onDoomedThread runs f on a thread that ends with it, and with it the last
// reference to namespaces that are not pinned.
func onDoomedThread(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		if unix.Gettid() != unix.Getpid() {
			done <- f()
			return
		}
		// The main thread never ends and would keep the namespaces. Held until
		// f is done, so that f cannot get it again.
		done <- <-onDoomedThread(f)
		runtime.UnlockOSThread()
	}()
	return done
}

// makeHere turns the calling thread into one of the new sandbox.
func (p pins) makeHere() error {
	if err := unix.Unshare(p.flags()); err != nil {
		return fmt.Errorf("unshare namespaces: %w", err)
	}
	for name, path := range p.files() {
		if err := pin(name, path); err != nil {
			return err
		}
	}
	if p.uts != "" && p.hostname != "" {
		if err := unix.Sethostname([]byte(p.hostname)); err != nil {
			return fmt.Errorf("set host name: %w", err)
		}
	}
	if p.net != "" {
		if err := loopbackUp(); err != nil {
			return err
		}
	}
	return p.writeSysctls()
}

func pin(name, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("make pin of %s namespace: %w", name, err)
	}
	f.Close()
	src := fmt.Sprintf("/proc/self/task/%d/ns/%s", unix.Gettid(), name)
	if err := unix.Mount(src, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin %s namespace: %w", name, err)
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}

var sysctlName = regexp.MustCompile(`^[a-z0-9]([-_a-z0-9]*[a-z0-9])?([./][a-z0-9]([-_a-z0-9]*[a-z0-9])?)+$`)

// checkSysctls lets only namespaced names through, and only where the sandbox
// has the namespace: any other would change the host.
func (p pins) checkSysctls() error {
	for name, value := range p.sysctls {
		dotted := strings.ReplaceAll(name, "/", ".")
		net := strings.HasPrefix(dotted, "net.")
		ipc := strings.HasPrefix(dotted, "kernel.shm") || strings.HasPrefix(dotted, "kernel.msg") ||
			dotted == "kernel.sem" || strings.HasPrefix(dotted, "fs.mqueue.")
		switch {
		case !sysctlName.MatchString(name) || strings.ContainsAny(value, "\n\x00"):
			return fmt.Errorf("sysctl %q has a malformed name or value", name)
		case net && p.net == "":
			return fmt.Errorf("sysctl %q is not allowed on the host's network", name)
		case ipc && p.ipc == "":
			return fmt.Errorf("sysctl %q is not allowed in the host's IPC namespace", name)
		case !net && !ipc:
			return fmt.Errorf("sysctl %q is not namespaced", name)
		}
	}
	return nil
}

// netSysctls are containerd's defaults for pods: ports below 1024 and ICMP echo
// sockets without a capability.
var netSysctls = map[string]string{
	"net.ipv4.ip_unprivileged_port_start": "0",
	"net.ipv4.ping_group_range":           "0 2147483647",
}

func (p pins) writeSysctls() error {
	if p.net != "" {
		for name, value := range netSysctls {
			if _, set := p.sysctls[name]; set {
				continue
			}
			if err := writeSysctl(name, value); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	for name, value := range p.sysctls {
		if err := writeSysctl(name, value); err != nil {
			return err
		}
	}
	return nil
}

func writeSysctl(name, value string) error {
	path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
	if strings.Contains(name, "/") {
		path = "/proc/sys/" + name // the slash form keeps dots in interface names
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set sysctl %s: %w", name, err)
	}
	defer f.Close()
	if _, err := f.WriteString(value); err != nil {
		return fmt.Errorf("set sysctl %s: %w", name, err)
	}
	return nil
}

func (p pins) mountShm() error {
	if p.shm == "" {
		return nil
	}
	if err := os.Mkdir(p.shm, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make /dev/shm: %w", err)
	}
	err := unix.Mount("shm", p.shm, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC,
		fmt.Sprintf("mode=1777,size=%d", shmSize))
	if err != nil {
		return fmt.Errorf("mount /dev/shm: %w", err)
	}
	return nil
}

// release unpins and unmounts everything; what is already gone is no error.
func (p pins) release() error {
	var errs []error
	for _, path := range p.files() {
		errs = append(errs, unpin(path))
	}
	for _, path := range []string{p.shm, p.pid} {
		if path != "" {
			errs = append(errs, unpin(path))
		}
	}
	return errors.Join(errs...)
}

func unpin(path string) error {
	// Detached: whoever still holds it keeps it, but nobody new finds it. More
	// than once where something mounted over the pin.
	for range 8 {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove pin: %w", err)
	}
	return nil
}

// intact tells whether every pin is still what it was made as.
func (p pins) intact() bool {
	for _, path := range p.files() {
		if !mountOf(path, unix.NSFS_MAGIC) {
			return false
		}
	}
	if p.pid != "" && !mountOf(p.pid, unix.NSFS_MAGIC) {
		return false
	}
	return p.shm == "" || mountPoint(p.shm)
}

// mountPoint tells whether another file system begins at path: the run
// directory is a tmpfs as well, so that the type says nothing.
func mountPoint(path string) bool {
	var here, above unix.Stat_t
	return unix.Lstat(path, &here) == nil && unix.Lstat(filepath.Dir(path), &above) == nil && here.Dev != above.Dev
}

func mountOf(path string, magic int64) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && int64(st.Type) == magic
}
