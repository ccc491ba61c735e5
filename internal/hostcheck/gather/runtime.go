package gather

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nodeagent/internal/hostcheck"
)

// runtime asks containerd what it is, and looks at where its layers are.
func (g *gatherer) runtime(ctx context.Context) (see, error) {
	if g.About == nil {
		return nil, errors.New("nobody to ask")
	}
	// That nobody listens, or that this user may not ask, the socket tells at
	// once; the client would try again until its time is over.
	if err := unix.Access(g.Containerd, unix.W_OK); errors.Is(err, unix.EACCES) {
		return nil, errNotRoot
	} else if errors.Is(err, fs.ErrNotExist) {
		return g.noRuntime("there is no such socket"), nil
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", g.Containerd)
	if err != nil {
		return g.noRuntime(err.Error()), nil
	}
	_ = conn.Close()
	about, err := g.About(ctx)
	if errors.Is(err, fs.ErrPermission) {
		return nil, errNotRoot
	}
	if err != nil {
		why := err.Error()
		if ctx.Err() != nil {
			why = "no answer in time"
		}
		return g.noRuntime(why), nil
	}
	about.Address = g.Containerd
	return func(f *hostcheck.Facts) {
		f.Runtime = &about.Runtime
		if d, err := disk(UseImage, about.ImageRoot); about.ImageRoot != "" && err == nil {
			addDisk(f, d)
		}
	}, nil
}

func (g *gatherer) noRuntime(why string) see {
	r := &hostcheck.Runtime{Address: g.Containerd, Error: why, Alive: running("containerd")}
	return func(f *hostcheck.Facts) { f.Runtime = r }
}

// running tells whether there is a process of a program.
func running(name string) bool {
	pids, _ := processes()
	for _, pid := range pids {
		if comm, _ := text(filepath.Join("/proc", strconv.Itoa(pid), "comm")); comm == name {
			return true
		}
	}
	return false
}

// makesAtBoot tells whether a file of tmpfiles.d makes a directory.
func makesAtBoot(dir string) bool {
	for _, where := range []string{"/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"} {
		files, _ := filepath.Glob(filepath.Join(where, "tmpfiles.d", "*.conf"))
		for _, file := range files {
			b, _ := os.ReadFile(file)
			for line := range strings.Lines(string(b)) {
				if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[0], "d") && filepath.Clean(f[1]) == dir {
					return true
				}
			}
		}
	}
	return false
}
