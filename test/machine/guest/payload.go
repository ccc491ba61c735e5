package guest

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"nodeagent/test/bed"
)

// Places in the guest. They are on a disk of their own, which is made once a run.
const (
	hostDir  = "/opt/nodeagent/host"  // where that disk is mounted; the others lead there
	binDir   = "/opt/nodeagent/bin"   // our programs, and a stand-in for go
	builtDir = "/opt/nodeagent/built" // what the stand-in hands out
	treeDir  = "/opt/nodeagent/tree"  // the module's files, so that tests find testdata and examples
)

// payloadSize is the size of that disk, which a snapshot knows. The snapshot is
// made with an empty one in its place.
const payloadSize = 512 << 20

// mountPayload: what the kernel has read of the empty disk it must forget.
const mountPayload = `disk=/dev/disk/by-id/virtio-payload
blockdev --flushbufs $disk
mkdir -p ` + hostDir + `
mount -o ro,noload $disk ` + hostDir + `
cd /opt/nodeagent
ln -sfn host/bin host/built host/tree .
`

// loadModules loads what modules-load.d loads on a real node, and what only
// tests use. A test of modules-load.d itself calls Programs after its own boot.
const loadModules = `grep -hv '^#' ` + treeDir + `/systemd/modules-load.d/*.conf | xargs modprobe -a loop ip_vs`

// programs are what a bed in the guest asks go to build.
var programs = []struct{ name, pkg string }{
	{"nodeagent", "nodeagent/cmd/nodeagent"},
	{"containerd-shim-nodeagent-v1", "nodeagent/cmd/containerd-shim-nodeagent-v1"},
	{"nodeagent-shim", "nodeagent/cmd/nodeagent-shim"},
	{"reaper", "nodeagent/test/bed/reaper"},
	{"podtool", "nodeagent/test/image/podtool"},
	{"floor", "nodeagent/test/floor"},
}

// failpointPrograms are those that a bed also runs with failpoints.
var failpointPrograms = []string{"nodeagent", "containerd-shim-nodeagent-v1", "nodeagent-shim"}

// goStandIn answers "go build … -o OUT … PACKAGE" with what the host has built.
// The guest has no compiler and no network, and a bed that asks for its programs
// needs to know nothing of that.
const goStandIn = `#!/bin/sh
set -eu
tags= out= last=
while [ $# -gt 0 ]; do
	case $1 in
	-o) out=$2; shift ;;
	-tags) case $2 in *failpoints) tags=-failpoints ;; esac; shift ;;
	esac
	last=$1; shift
done
[ "$last" = . ] && last=$PWD
from=` + builtDir + `/$(basename "$last")$tags
[ -n "$out" ] && [ -x "$from" ] || { echo "this guest has no compiler, and $from was not brought in" >&2; exit 1; }
cp "$from" "$out"
`

// bedEnv makes package bed find in the guest what it builds on a host.
func bedEnv() []string {
	return []string{
		"NODEAGENT_TREE=" + treeDir, "NODEAGENT_BED_TOOLS=" + toolsDir, "NODEAGENT_BED_BIN=" + binDir,
		"PATH=" + binDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"NODEAGENT_MACHINE=", "GOTRACEBACK=all",
	}
}

// Programs gives the guest our programs, built for its architecture, as
// /opt/nodeagent/bin/nodeagent and those of the shim, next to
// /opt/nodeagent/tools with containerd, ctr and runc, and the tree's files as
// /opt/nodeagent/tree. They cannot be written to, and are gone after a reboot.
// Once a boot.
func (g *Guest) Programs(ctx context.Context) error {
	g.mu.Lock()
	done := g.bedded
	g.mu.Unlock()
	if done {
		return nil
	}
	if _, err := g.Shell(ctx, mountPayload+loadModules); err != nil {
		return fmt.Errorf("bring the programs into the guest: %w", err)
	}
	g.mu.Lock()
	g.bedded = true
	g.mu.Unlock()
	return nil
}

// payload returns the disk with the programs and the tree: that of the run, or
// one made in dir.
func payload(ctx context.Context, arch, dir string) (string, error) {
	fill := func(dir string) error { return makePayload(ctx, arch, filepath.Join(dir, "disk")) }
	run, made, err := shared("payload-"+arch, fill)
	if err == nil && !made {
		run, err = dir, fill(dir)
	}
	if err != nil {
		return "", fmt.Errorf("make a disk of the programs: %w", err)
	}
	return filepath.Join(run, "disk"), nil
}

func makePayload(ctx context.Context, arch, path string) error {
	built, unlock, err := builtFor(ctx, arch)
	if err != nil {
		return err
	}
	defer unlock()
	root, err := bed.ModuleRoot(ctx)
	if err != nil {
		return err
	}
	tree, err := os.MkdirTemp(cache(), "building-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	r, w := io.Pipe()
	go func() { w.CloseWithError(writePayload(ctx, w, built, root)) }() // ends with the pipe
	defer r.Close()
	untar := exec.CommandContext(ctx, "tar", "-C", tree, "-xf", "-")
	untar.Stdin = r
	if text, err := untar.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, text)
	}
	if err := sparse(path, payloadSize); err != nil {
		return err
	}
	_, err = output(ctx, "mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-m", "0", "-d", filepath.Join(tree, hostDir), path)
	return err
}

// builtFor builds all programs for an architecture into the cache, where go finds
// what is still good. Nobody else builds there until unlock.
func builtFor(ctx context.Context, arch string) (dir string, unlock func(), err error) {
	dir = filepath.Join(cache(), "built-"+arch)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, err
	}
	lock, err := flock(dir+".lock", unix.LOCK_EX)
	if err != nil {
		return "", nil, err
	}
	for _, p := range programs {
		if err := goBuild(ctx, arch, p.pkg, filepath.Join(dir, p.name), "-tags", "grpcnotrace"); err != nil {
			return "", nil, errors.Join(err, lock.Close())
		}
	}
	for _, name := range failpointPrograms {
		err := goBuild(ctx, arch, "nodeagent/cmd/"+name, filepath.Join(dir, name+"-failpoints"), "-tags", "grpcnotrace,failpoints")
		if err != nil {
			return "", nil, errors.Join(err, lock.Close())
		}
	}
	return dir, func() { lock.Close() }, nil
}

func writePayload(ctx context.Context, w io.Writer, built, root string) error {
	t := tar.NewWriter(w)
	if err := addData(t, filepath.Join(hostDir, "bin/go"), 0o755, []byte(goStandIn)); err != nil {
		return err
	}
	entries, err := os.ReadDir(built)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := addFile(t, filepath.Join(hostDir, "built", e.Name()), filepath.Join(built, e.Name())); err != nil {
			return err
		}
	}
	for _, p := range programs[:3] {
		h := &tar.Header{Typeflag: tar.TypeLink, Name: filepath.Join(hostDir, "bin", p.name), Linkname: filepath.Join(hostDir, "built", p.name)}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
	}
	if err := addTree(ctx, t, root); err != nil {
		return err
	}
	return t.Close()
}

// addTree adds the files that git knows, or would if it were told: a clone has
// nothing else, and build products stay out.
func addTree(ctx context.Context, t *tar.Writer, root string) error {
	cmd := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("list the tree's files: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		err := addFile(t, filepath.Join(hostDir, "tree", name), filepath.Join(root, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) { // one that was just removed
			return err
		}
	}
	return nil
}

func addFile(t *tar.Writer, name, path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSymlink != 0 {
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		return t.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target})
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return addData(t, name, int64(info.Mode().Perm()), data)
}

func addData(t *tar.Writer, name string, mode int64, data []byte) error {
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err := t.Write(data)
	return err
}
