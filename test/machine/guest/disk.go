package guest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"nodeagent/test/bed"
)

// Suite is the Debian of the guests.
const Suite = "bookworm"

// packages of the guest besides the kernel. runc and lxcfs are Debian's; the
// beds' own runc and containerd come with the tools.
var packages = []string{
	"systemd", "systemd-sysv", "dbus", "udev", "kmod", "iproute2", "iptables", "nftables", "ipset", "ipvsadm",
	"conntrack", "runc", "crun", "lxcfs", "apparmor", "containernetworking-plugins", "busybox-static", "procps",
	"e2fsprogs", "libseccomp2", "ca-certificates",
}

const (
	diskSize = 8 << 30 // sparse
	// toolsDir holds containerd, its shim, ctr and runc in the guest.
	toolsDir = "/opt/nodeagent/tools"
)

// Image is a cached guest disk.
type Image struct {
	Key, Raw, Kernel, Initrd string
}

// Disk returns the disk of an architecture, and builds it if the cache has none
// (a minute for the host's architecture, several for another).
func Disk(ctx context.Context, arch string) (Image, error) {
	disks.Lock()
	defer disks.Unlock()
	d, ok := disks.made[arch]
	if ok {
		return d, nil
	}
	d, err := disk(ctx, arch)
	if err == nil {
		disks.made[arch] = d
	}
	return d, err
}

// disks are those of this process: hashing what goes into one takes a second.
var disks = struct {
	sync.Mutex
	made map[string]Image
}{made: map[string]Image{}}

func disk(ctx context.Context, arch string) (Image, error) {
	tools, err := Tools(ctx, arch)
	if err != nil {
		return Image{}, err
	}
	agent, err := buildAgent(ctx, arch)
	if err != nil {
		return Image{}, err
	}
	files, err := contents(agent, tools)
	if err != nil {
		return Image{}, err
	}
	sums := make([]string, 0, len(files))
	for _, f := range files {
		sums = append(sums, fmt.Sprintf("%s %o %x %s", f.path, f.mode, sha256.Sum256(f.data), f.link))
	}
	slices.Sort(sums)
	dir, made, unlock, err := entry("disk-"+arch, Suite, packages, machines[arch].kernel, diskSize, sums, toDisk, toRoot)
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	d := Image{Key: filepath.Base(dir), Raw: filepath.Join(dir, "disk.raw"), Kernel: filepath.Join(dir, "kernel"), Initrd: filepath.Join(dir, "initrd")}
	if made {
		return d, nil
	}
	tree, err := debian(ctx, arch)
	if err != nil {
		return Image{}, err
	}
	return d, makeDisk(ctx, tree, files, dir)
}

// debian returns a tar of the packages' tree.
func debian(ctx context.Context, arch string) (string, error) {
	dir, made, unlock, err := entry("tree-"+arch, Suite, packages, machines[arch].kernel)
	if err != nil {
		return "", err
	}
	defer unlock()
	path := filepath.Join(dir, "tree.tar")
	if made {
		return path, nil
	}
	tmp, err := os.MkdirTemp(cache(), "building-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	include := strings.Join(append(slices.Clone(packages), machines[arch].kernel), ",")
	argv := []string{"mmdebstrap", "--quiet", "--variant=minbase", "--arch=" + arch, "--include=" + include, Suite, filepath.Join(tmp, "tree.tar")}
	if arch != runtime.GOARCH {
		argv = append([]string{"unshare", "--mount", "/bin/sh", "-euc", foreign, "sh", machines[arch].binfmt}, argv...)
	}
	if _, err = output(ctx, argv...); err != nil {
		return "", fmt.Errorf("build the guest's Debian: %w", err)
	}
	return path, os.Rename(tmp, dir)
}

// foreign runs a command where the kernel can start programs of another
// architecture. The mount is seen by nobody else; what it registered it takes
// back.
const foreign = `name=$1; shift
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
if [ ! -e /proc/sys/fs/binfmt_misc/$name ]; then
	trap 'echo -1 > /proc/sys/fs/binfmt_misc/$name' EXIT
	cat /usr/lib/binfmt.d/$name.conf > /proc/sys/fs/binfmt_misc/register
fi
"$@"`

// makeDisk makes an ext4 disk of the tree and our files, and beside it the kernel
// with an initrd.
func makeDisk(ctx context.Context, tree string, files []file, dir string) error {
	tmp, err := os.MkdirTemp(cache(), "building-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	root, out := filepath.Join(tmp, "root"), filepath.Join(tmp, "out")
	if err := errors.Join(os.Mkdir(root, 0o755), os.Mkdir(out, 0o755)); err != nil {
		return err
	}
	if _, err := output(ctx, "tar", "-C", root, "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xf", tree); err != nil {
		return err
	}
	for _, f := range files {
		if err := f.write(root); err != nil {
			return err
		}
	}
	kernels, err := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		return errors.Join(fmt.Errorf("find the guest's kernel: there are %q", kernels), err)
	}
	if err := os.Rename(kernels[0], filepath.Join(out, "kernel")); err != nil {
		return err
	}
	small, err := initrd(root)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "initrd"), small, 0o644); err != nil {
		return err
	}
	raw := filepath.Join(out, "disk.raw")
	if err := sparse(raw, diskSize); err != nil {
		return err
	}
	if _, err := output(ctx, "mkfs.ext4", "-q", "-F", "-L", "root", "-d", root, raw); err != nil {
		return err
	}
	return os.Rename(out, dir)
}

// buildAgent builds the guest's end of the wire.
func buildAgent(ctx context.Context, arch string) ([]byte, error) {
	path := filepath.Join(cache(), "agent-"+arch)
	if err := os.MkdirAll(cache(), 0o755); err != nil {
		return nil, err
	}
	lock, err := flock(path+".lock", unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := goBuild(ctx, arch, "nodeagent/test/machine/guest/agent", path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// goBuild builds a static program of the tree, unless out is up to date.
func goBuild(ctx context.Context, arch, pkg, out string, flags ...string) error {
	root, err := bed.ModuleRoot(ctx)
	if err != nil {
		return err
	}
	argv := slices.Concat([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out}, flags, []string{pkg})
	cmd := exec.CommandContext(ctx, "go", argv...)
	cmd.Dir, cmd.Env = root, goEnv(arch)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s for %s: %w\n%s", pkg, arch, err, text)
	}
	return nil
}

func goEnv(arch string) []string {
	return append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
}

// file is one that a guest's disk gets on top of Debian.
type file struct {
	path string
	mode os.FileMode
	data []byte
	link string
}

func (f file) write(root string) error {
	path := filepath.Join(root, f.path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if f.link != "" {
		return os.Symlink(f.link, path)
	}
	if err := os.WriteFile(path, f.data, f.mode); err != nil {
		return err
	}
	return os.Chmod(path, f.mode)
}

// contents are our files: the agent and its unit, the tools, and what keeps a
// guest quiet while a test measures.
func contents(agent []byte, tools string) ([]file, error) {
	files := []file{
		{path: "/opt/nodeagent/guest-agent", mode: 0o755, data: agent},
		{path: "/etc/systemd/system/guest-agent.service", mode: 0o644, data: []byte(agentUnit)},
		{path: "/etc/udev/rules.d/60-nodeagent.rules", mode: 0o644, data: []byte(agentRule)},
		{path: "/etc/systemd/system/systemd-udev-trigger.service.d/few.conf", mode: 0o644, data: []byte(fewDevices)},
		{path: "/etc/systemd/system/default.target", link: "/usr/lib/systemd/system/multi-user.target"},
		{path: "/etc/systemd/system/multi-user.target.wants/guest-agent.service", link: "../guest-agent.service"},
		{path: "/etc/hostname", mode: 0o644, data: []byte("guest\n")},
		{path: "/etc/hosts", mode: 0o644, data: []byte("127.0.0.1 localhost guest\n::1 localhost\n")},
		{path: "/etc/resolv.conf", mode: 0o644, data: []byte("nameserver 192.0.2.53\n")}, // RFC 5737: nobody
		{path: "/etc/machine-id", mode: 0o644},
		{path: "/etc/fstab", mode: 0o644, data: []byte("/dev/vda / ext4 defaults 0 1\n")},
	}
	for _, path := range unwanted {
		files = append(files, file{path: path, link: "/dev/null"})
	}
	entries, err := os.ReadDir(tools)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(tools, e.Name()))
		if err != nil {
			return nil, err
		}
		files = append(files, file{path: filepath.Join(toolsDir, e.Name()), mode: 0o755, data: data})
	}
	return files, nil
}

// unwanted is what a guest without devices, logins and upgrades does not need, and what
// a boot, or each daemon-reload, or a test that measures, would pay for in emulation.
var unwanted = under(map[string][]string{
	"/etc/systemd/system": {
		"serial-getty@.service", "getty@tty1.service", "getty-static.service", "apt-daily.timer", "apt-daily-upgrade.timer",
		"dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "man-db.timer", "systemd-pstore.service",
		"systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "systemd-ask-password-console.path",
		"systemd-ask-password-wall.path", "modprobe@dm_mod.service", "modprobe@drm.service", "ipvsadm.service",
	},
	"/etc/systemd/system-generators": {
		"systemd-cryptsetup-generator", "systemd-debug-generator", "systemd-getty-generator", "systemd-gpt-auto-generator",
		"systemd-hibernate-resume-generator", "systemd-integritysetup-generator", "systemd-rc-local-generator",
		"systemd-run-generator", "systemd-system-update-generator", "systemd-sysv-generator", "systemd-veritysetup-generator",
	},
	"/etc/apparmor.d": {"lsb_release", "nvidia_modprobe"},
})

func under(names map[string][]string) (all []string) {
	for dir, of := range names {
		for _, name := range of {
			all = append(all, dir+"/"+name)
		}
	}
	return all
}

// agentUnit: nothing that a test does may take its own wire away.
const agentUnit = `[Unit]
Description=the host's hands in this guest
Wants=dev-virtio\x2dports-nodeagent.device
After=basic.target dev-virtio\x2dports-nodeagent.device
StartLimitIntervalSec=0

[Service]
ExecStart=/opt/nodeagent/guest-agent
Restart=always
RestartSec=100ms
OOMScoreAdjust=-1000
OOMPolicy=continue
TasksMax=infinity
LimitCORE=0
Environment=HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

[Install]
WantedBy=multi-user.target
`

// agentRule has systemd wait for the port, instead of starting the agent over and
// over until udev has come to it.
const agentRule = `SUBSYSTEM=="virtio-ports", ATTR{name}=="nodeagent", TAG+="systemd", ENV{SYSTEMD_ALIAS}="/dev/virtio-ports/nodeagent"
`

// fewDevices: of a guest's devices, those that a test has to do with. The drivers of
// the others would be loaded, and systemd told of each.
const fewDevices = `[Service]
ExecStart=
ExecStart=-udevadm trigger --type=devices --action=add --subsystem-match=virtio --subsystem-match=virtio-ports --subsystem-match=block
`

// Tools returns a directory with containerd, containerd-shim-runc-v2, ctr and
// runc for an architecture.
func Tools(ctx context.Context, arch string) (string, error) {
	if arch == runtime.GOARCH {
		return bed.Tools(ctx, os.Stderr)
	}
	return crossTools(ctx, arch)
}
