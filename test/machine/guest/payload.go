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

// Places in the guest.
const (
	binDir   = "/opt/nodeagent/bin"   // our programs, and a stand-in for go
	builtDir = "/opt/nodeagent/built" // what the stand-in hands out
	treeDir  = "/opt/nodeagent/tree"  // the module's files, so that tests find testdata and examples
)

// loadModules loads what modules-load.d loads on a real node, and what only
// tests use. A test of modules-load.d itself calls Programs after its own boot.
const loadModules = `grep -hv '^#' ` + treeDir + `/systemd/modules-load.d/*.conf | xargs modprobe -a loop ip_vs`

// programs are what a bed in the guest asks go to build.
var programs = []struct{ name, pkg string }{
	{"nodeagent", "nodeagent/cmd/nodeagent"},
	{"containerd-shim-nodeagent-v1", "nodeagent/cmd/containerd-shim-nodeagent-v1"},
	{"reaper", "nodeagent/test/bed/reaper"},
	{"podtool", "nodeagent/test/image/podtool"},
	{"floor", "nodeagent/test/floor"},
}

// failpointPrograms are those that a bed also runs with failpoints.
var failpointPrograms = []string{"nodeagent", "containerd-shim-nodeagent-v1"}

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

// Programs builds our programs for the guest's architecture and brings them in
// as /opt/nodeagent/bin/nodeagent and …/containerd-shim-nodeagent-v1, next to
// /opt/nodeagent/tools with containerd, ctr and runc, and the tree's files as
// /opt/nodeagent/tree. Once a guest.
func (g *Guest) Programs(ctx context.Context) error {
	g.mu.Lock()
	done := g.bedded
	g.mu.Unlock()
	if done {
		return nil
	}
	dir, unlock, err := builtFor(ctx, g.opts.Arch)
	if err != nil {
		return err
	}
	defer unlock()
	root, err := bed.ModuleRoot(ctx)
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(writePayload(ctx, w, dir, root)) }() // ends with the pipe
	defer r.Close()
	code, err := g.Exec(ctx, Command{Argv: []string{"tar", "-C", "/", "-xf", "-"}, Stdin: r})
	if err == nil && code != 0 {
		err = fmt.Errorf("tar ended with %d", code)
	}
	if err != nil {
		return fmt.Errorf("bring the programs into the guest: %w", err)
	}
	if _, err := g.Shell(ctx, loadModules); err != nil {
		return err
	}
	g.mu.Lock()
	g.bedded = true
	g.mu.Unlock()
	return nil
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
	if err := addData(t, filepath.Join(binDir, "go"), 0o755, []byte(goStandIn)); err != nil {
		return err
	}
	entries, err := os.ReadDir(built)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := addFile(t, filepath.Join(builtDir, e.Name()), filepath.Join(built, e.Name())); err != nil {
			return err
		}
	}
	for _, p := range programs[:3] {
		h := &tar.Header{Typeflag: tar.TypeLink, Name: filepath.Join(binDir, p.name), Linkname: filepath.Join(builtDir, p.name)}
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
		err := addFile(t, filepath.Join(treeDir, name), filepath.Join(root, name))
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
