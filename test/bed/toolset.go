package bed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Toolset is what one "go install" builds; changing any string changes the key
// of the cache.
type Toolset struct {
	Binaries []string
	Packages []string // with @version, unless Dir is set
	// Test, if set, is a package of Dir's build whose test program is one of
	// Binaries, by the name that "go test -c" gives it.
	Test  string
	Cgo   string // CGO_ENABLED
	Flags []string
	// Dir is a directory of the module that says which versions are built. It is
	// no part of the key: its go.mod and go.sum are.
	Dir string
}

// Build returns a directory of the cache that holds every program of sets,
// building what it lacks. The directory is named by name and by what the
// programs are made from: Go, the architecture, the sets and inputs. talk, if
// not nil, is told what is being built.
func Build(ctx context.Context, name string, inputs []byte, sets []Toolset, talk io.Writer) (string, error) {
	key := sha256.New()
	fmt.Fprintln(key, runtime.Version(), runtime.GOARCH)
	for _, s := range sets {
		fmt.Fprintf(key, "{%q %q %q %q}\n", s.Binaries, s.Packages, s.Cgo, s.Flags)
		if s.Test != "" {
			fmt.Fprintf(key, "%q\n", s.Test)
		}
	}
	key.Write(inputs)
	dir := filepath.Join(CacheDir(), name+"-"+hex.EncodeToString(key.Sum(nil))[:12])
	unlock, err := lock(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	for _, s := range sets {
		if haveAll(dir, s.Binaries) {
			continue
		}
		if os.Getenv("DEPS") == "0" {
			return installed(dir+"-installed", sets)
		}
		if talk != nil {
			fmt.Fprintf(talk, "building %s into %s\n", strings.Join(s.Binaries, ", "), dir)
		}
		if err := install(ctx, dir, s); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// installed makes dir a view of the programs that the machine has, for who wants
// nothing to be built.
func installed(dir string, sets []Toolset) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for _, s := range sets {
		for _, name := range s.Binaries {
			path, err := exec.LookPath(name)
			if err != nil {
				return "", fmt.Errorf("find %s on this machine (DEPS=0 forbids to build it): %w", name, err)
			}
			link := filepath.Join(dir, name)
			if err := ignoreNotExist(os.Remove(link), link); err != nil {
				return "", err
			}
			if err := os.Symlink(path, link); err != nil {
				return "", err
			}
		}
	}
	return dir, nil
}

func haveAll(dir string, names []string) bool {
	if dir == "" {
		return false
	}
	for _, n := range names {
		if _, err := os.Stat(filepath.Join(dir, n)); err != nil {
			return false
		}
	}
	return true
}

// install builds into a directory next to dir and moves the binaries there, so
// that dir never holds half of one.
func install(ctx context.Context, dir string, s Toolset) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "building-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	commands := [][]string{slices.Concat([]string{"install"}, s.Flags, s.Packages)}
	if s.Test != "" {
		commands = append(commands, slices.Concat([]string{"test", "-c", "-vet=off", "-o", tmp + "/"}, s.Flags, []string{s.Test}))
	}
	for _, argv := range commands {
		if err := s.run(ctx, tmp, argv); err != nil {
			return err
		}
	}
	for _, n := range s.Binaries {
		if err := os.Rename(filepath.Join(tmp, n), filepath.Join(dir, n)); err != nil {
			return err
		}
	}
	return nil
}

// run runs one go command of a build.
func (s Toolset) run(ctx context.Context, tmp string, argv []string) error {
	cmd := exec.CommandContext(ctx, "go", argv...)
	if cmd.Dir = s.Dir; s.Dir == "" {
		cmd.Dir = tmp // outside any module: module@version must not see ours
	}
	cmd.Env = append(os.Environ(), "GOBIN="+tmp, "CGO_ENABLED="+s.Cgo, "GOFLAGS=", "GO111MODULE=on", "GOWORK=off")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		hint := ""
		if s.Cgo == "1" {
			hint = " (it needs gcc, pkg-config and libseccomp-dev: make deps)"
		}
		return fmt.Errorf("build %s%s: %w\n%s", strings.Join(s.Binaries, ", "), hint, err, out.String())
	}
	return nil
}

// lock takes an exclusive file lock and returns what releases it. The file
// stays: removing a lock file that somebody waits for makes two owners.
func lock(path string) (func(), error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
