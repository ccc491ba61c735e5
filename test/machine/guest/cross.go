package guest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"nodeagent/test/bed"
)

// cross says how runc, which is partly C, is built for another architecture.
var cross = map[string]struct{ cc, lib string }{
	"arm64": {cc: "aarch64-linux-gnu-gcc", lib: "aarch64-linux-gnu"},
	"amd64": {cc: "x86_64-linux-gnu-gcc", lib: "x86_64-linux-gnu"},
}

// crossTools builds the versions that package bed names for an architecture that
// is not the host's, and caches them.
func crossTools(ctx context.Context, arch string) (string, error) {
	const ctd = "github.com/containerd/containerd/v2"
	ctdFlags := []string{"-trimpath", "-ldflags", "-s -w -X " + ctd + "/version.Version=" + bed.ContainerdVersion}
	runcFlags := []string{"-trimpath", "-tags", "seccomp", "-ldflags", "-s -w -X main.version=" + bed.RuncVersion}
	dir, made, unlock, err := entry("tools-"+arch, runtime.Version(), bed.ContainerdVersion, bed.RuncVersion, ctdFlags, runcFlags)
	if err != nil {
		return "", err
	}
	defer unlock()
	if made {
		return dir, nil
	}
	fmt.Fprintf(os.Stderr, "building containerd and runc for %s into %s\n", arch, dir)
	tmp, err := os.MkdirTemp(cache(), "building-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	var modules []string
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
		modules = append(modules, ctd+"/cmd/"+name+"@v"+bed.ContainerdVersion)
	}
	if err := goInstall(ctx, tmp, goEnv(arch), ctdFlags, modules...); err != nil {
		return "", err
	}
	seccomp := filepath.Join(tmp, "seccomp")
	if err := library(ctx, arch, seccomp, "libseccomp-dev,libseccomp2"); err != nil {
		return "", err
	}
	lib := filepath.Join(seccomp, "usr/lib", cross[arch].lib)
	env := append(goEnv(arch), "CGO_ENABLED=1", "CC="+cross[arch].cc, "PKG_CONFIG_LIBDIR="+filepath.Join(lib, "pkgconfig"),
		"PKG_CONFIG_SYSROOT_DIR="+seccomp, "CGO_LDFLAGS=-L"+lib)
	if err := goInstall(ctx, tmp, env, runcFlags, "github.com/opencontainers/runc@v"+bed.RuncVersion); err != nil {
		return "", err
	}
	return dir, os.Rename(filepath.Join(tmp, "go/bin/linux_"+arch), dir)
}

// goInstall installs modules below dir/go: with GOBIN go refuses to cross-compile.
func goInstall(ctx context.Context, dir string, env, flags []string, modules ...string) error {
	mod, err := output(ctx, "go", "env", "GOMODCACHE")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", append(append([]string{"install"}, flags...), modules...)...)
	cmd.Dir = dir // outside any module
	cmd.Env = append(env, "GOPATH="+filepath.Join(dir, "go"), "GOMODCACHE="+strings.TrimSpace(mod), "GOBIN=", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", strings.Join(modules, ", "), err, tail(string(text), 30))
	}
	return nil
}

// library unpacks Debian packages of an architecture, without running anything
// of theirs.
func library(ctx context.Context, arch, dir, packages string) error {
	_, err := output(ctx, "mmdebstrap", "--quiet", "--variant=extract", "--arch="+arch, "--include="+packages, Suite, dir)
	if err != nil {
		return fmt.Errorf("fetch %s for %s: %w", packages, arch, err)
	}
	return nil
}
