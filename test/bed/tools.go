package bed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Versions of the programs that a bed runs. runc's is the one that this
// containerd names in its script/setup/runc-version.
const (
	ContainerdVersion = "2.4.2"
	RuncVersion       = "1.5.2"
)

// toolsets are what Tools builds.
func toolsets() []Toolset {
	const ctd = "github.com/containerd/containerd/v2"
	return []Toolset{
		{
			Binaries: []string{"containerd", "containerd-shim-runc-v2", "ctr"},
			Packages: []string{
				ctd + "/cmd/containerd@v" + ContainerdVersion,
				ctd + "/cmd/containerd-shim-runc-v2@v" + ContainerdVersion,
				ctd + "/cmd/ctr@v" + ContainerdVersion,
			},
			Cgo:   "0",
			Flags: []string{"-trimpath", "-ldflags", "-s -w -X " + ctd + "/version.Version=" + ContainerdVersion},
		},
		{
			Binaries: []string{"runc"},
			Packages: []string{"github.com/opencontainers/runc@v" + RuncVersion},
			Cgo:      "1", // nsexec is C, seccomp is libseccomp
			Flags:    []string{"-trimpath", "-tags", "seccomp", "-ldflags", "-s -w -X main.version=" + RuncVersion},
		},
	}
}

// CacheDir is where built programs stay between runs: $XDG_CACHE_HOME/nodeagent,
// ~/.cache/nodeagent, or /var/cache/nodeagent without a home.
func CacheDir() string {
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, "nodeagent")
	}
	return "/var/cache/nodeagent"
}

// Tools returns the directory with containerd, containerd-shim-runc-v2, ctr and
// runc, building what the cache lacks (about two minutes on two cores, once).
// NODEAGENT_BED_TOOLS names a directory to take them from instead. talk, if not
// nil, is told what is being built.
func Tools(ctx context.Context, talk io.Writer) (string, error) {
	if dir := os.Getenv("NODEAGENT_BED_TOOLS"); dir != "" {
		return dir, nil
	}
	return Build(ctx, "tools", nil, toolsets(), talk)
}

// Variant is a way to build our own programs.
type Variant struct {
	Failpoints bool // -tags failpoints
	Race       bool // -race, which needs cgo
}

func (v Variant) name() string {
	n := "plain"
	if v.Failpoints {
		n = "failpoints"
	}
	if v.Race {
		n += "-race"
	}
	return n
}

// Built builds one of our own programs (nodeagent, containerd-shim-nodeagent-v1
// with the shim itself, or ./test/bed/reaper) from the tree around the working
// directory and returns the directory that holds it. NODEAGENT_BED_BIN names a
// directory to take the plain variant from instead.
//
// The directory is named by the program's content, so a test that runs while
// another process builds a newer tree keeps the program that it started with.
func Built(ctx context.Context, name string, v Variant) (string, error) {
	builds.Lock()
	defer builds.Unlock()
	key := name + " " + v.name()
	if dir := builds.done[key]; haveAll(dir, programs(name)) {
		return dir, nil
	}
	dir, err := build(ctx, name, v)
	if err == nil {
		builds.done[key] = dir
	}
	return dir, err
}

// builds are those of this process: a test binary runs one tree, and asking go
// build again whether anything changed costs half a second a bed.
var builds = struct {
	sync.Mutex
	done map[string]string
}{done: map[string]string{}}

func build(ctx context.Context, name string, v Variant) (string, error) {
	if dir := os.Getenv("NODEAGENT_BED_BIN"); dir != "" && v == (Variant{}) && haveAll(dir, programs(name)) {
		return dir, nil
	}
	root, err := ModuleRoot(ctx)
	if err != nil {
		return "", err
	}
	base := filepath.Join(CacheDir(), "own")
	unlock, err := lock(filepath.Join(base, name+"-"+v.name()+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	tmp, err := os.MkdirTemp(base, "building-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	sum := sha256.New()
	for _, program := range programs(name) {
		pkg := "./cmd/" + program
		if program == reaperName {
			pkg = "./test/bed/reaper"
		}
		if err := buildOwn(ctx, root, pkg, filepath.Join(tmp, program), v); err != nil {
			return "", err
		}
		if err := addFile(sum, filepath.Join(tmp, program)); err != nil {
			return "", err
		}
	}
	dir := filepath.Join(base, hex.EncodeToString(sum.Sum(nil))[:16])
	if _, err := os.Stat(dir); err == nil {
		now := time.Now()
		return dir, os.Chtimes(dir, now, now)
	}
	dropOld(base, 24*time.Hour)
	return dir, os.Rename(tmp, dir)
}

// Our own programs.
const (
	agentName  = "nodeagent"
	shimName   = "containerd-shim-nodeagent-v1" // begins
	serverName = "nodeagent-shim"               // this one
	reaperName = "reaper"
)

// programs are those that must lie beside each other.
func programs(name string) []string {
	if name == shimName {
		return []string{shimName, serverName}
	}
	return []string{name}
}

func buildOwn(ctx context.Context, root, pkg, out string, v Variant) error {
	tags := "grpcnotrace" // as the Makefile
	if v.Failpoints {
		tags += ",failpoints"
	}
	args := []string{"build", "-o", out, "-trimpath", "-tags", tags}
	cgo := "0"
	if v.Race {
		args, cgo = append(args, "-race"), "1"
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "-ldflags", "-s -w", pkg)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, text)
	}
	return nil
}

// ModuleRoot is the directory of the nodeagent module around the working
// directory.
func ModuleRoot(ctx context.Context) (string, error) {
	if dir := os.Getenv("NODEAGENT_TREE"); dir != "" {
		return dir, nil
	}
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "nodeagent")
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find the nodeagent module from the working directory: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

func addFile(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// dropOld removes builds that nobody used for longer than age.
func dropOld(base string, age time.Duration) {
	entries, _ := os.ReadDir(base)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && e.IsDir() && time.Since(info.ModTime()) > age {
			os.RemoveAll(filepath.Join(base, e.Name()))
		}
	}
}

// BuildAll builds the plain variant of everything of ours that a bed runs into
// dir, for NODEAGENT_BED_BIN: one build in place of one a test process.
func BuildAll(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{agentName, shimName, reaperName} {
		built, err := Built(ctx, name, Variant{})
		if err != nil {
			return err
		}
		// A link that is replaced in one step: somebody may be starting it.
		tmp := filepath.Join(dir, name+".new")
		if err := ignoreNotExist(os.Remove(tmp), tmp); err != nil {
			return err
		}
		if err := os.Link(filepath.Join(built, name), tmp); err != nil {
			return err
		}
		if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}
