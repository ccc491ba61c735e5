//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"nodeagent/internal/shimapi"
)

// podManager is containerd's manager of runc shims, with first starts of a
// group one after the other, and an exit record from the cleaner of a dead one.
type podManager struct{ shim.Shim }

// Start begins the shim of the bundle's group or finds it. Two first starts of
// a group at once would each take the other's socket for a dead one between
// bind and listen, and leave an orphan; so they take turns. And a living shim
// is looked for here first: containerd gives it 100 ms to be reached and then
// takes its socket away, which on a busy machine leaves an orphan as well.
func (m *podManager) Start(ctx context.Context, params *bootapi.BootstrapParams) (*bootapi.BootstrapResult, error) {
	name := group()
	if name == "" {
		return m.Shim.Start(ctx, params)
	}
	dir := params.GetSocketDir()
	if dir == "" {
		dir = filepath.Join(defaults.DefaultStateDir, "s")
	}
	address, err := shim.CreateSocketAddress(ctx, dir, params.GetContainerdGrpcAddress(), name, false)
	if err != nil {
		return nil, fmt.Errorf("name shim socket: %w", err)
	}
	path := strings.TrimPrefix(address, "unix://")
	unlock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("lock shim group: %w", err)
	}
	defer unlock()
	alive, err := listens(path)
	if err != nil {
		return nil, fmt.Errorf("look for the shim of the group: %w", err)
	}
	if alive {
		return &bootapi.BootstrapResult{Version: 3, Protocol: "ttrpc", Address: address}, nil
	}
	return m.Shim.Start(ctx, params)
}

// listens tells whether somebody listens on a socket. Only the kernel's word
// that nobody does is taken for it.
func listens(path string) (bool, error) {
	conn, err := net.DialTimeout("unix", path, shimapi.Timeout)
	switch {
	case err == nil:
		return true, conn.Close()
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		return false, nil
	case errors.Is(err, unix.EAGAIN): // more wait to be accepted than it queues
		return true, nil
	}
	return false, err
}

// group reads the group from the bundle, which is the working directory.
func group() string {
	data, err := os.ReadFile("config.json")
	if err != nil {
		return ""
	}
	var spec struct {
		Annotations map[string]string `json:"annotations"`
	}
	if json.Unmarshal(data, &spec) != nil {
		return ""
	}
	return spec.Annotations[shimapi.GroupAnnotation]
}

// lockFile takes a file lock that lives as long as it is held: a holder removes
// the file, and who waited on a removed file tries again.
func lockFile(path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := flock(f); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		held, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if named, err := os.Stat(path); err == nil && os.SameFile(held, named) {
			return func() { _, _ = os.Remove(path), f.Close() }, nil
		}
		_ = f.Close()
	}
}

func flock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// noteFile holds a container's log URI in its bundle, for who has to clean up
// after a dead shim.
const noteFile = "nodeagent-log"

func writeNote(bundle, uri string) error {
	return os.WriteFile(filepath.Join(bundle, noteFile), []byte(uri), 0o600)
}

// Stop is called by containerd when the shim of a container is dead. It kills
// what is left; the code is real where the shim had seen the exit, else 137.
func (m *podManager) Stop(ctx context.Context, id string) (shim.StopStatus, error) {
	cwd, err := os.Getwd()
	if err != nil {
		return shim.StopStatus{}, fmt.Errorf("find bundle: %w", err)
	}
	note, noteErr := os.ReadFile(filepath.Join(filepath.Dir(cwd), id, noteFile))
	status, err := m.Shim.Stop(ctx, id)
	if err != nil || noteErr != nil {
		return status, err
	}
	uri, err := shimapi.ParseLogURI(string(note))
	if err != nil {
		return status, nil
	}
	if err := recordLost(uri, id, status); err != nil {
		log.G(ctx).WithError(err).Warn("record exit for a dead shim")
	}
	return status, nil
}

// recordLost writes the exit record unless the shim did, and takes away what a
// dead shim left of itself.
func recordLost(uri shimapi.LogURI, id string, status shim.StopStatus) error {
	if r, err := shimapi.ReadShim(uri.RunDir, uri.Sandbox); err == nil && !r.Alive() {
		if err := os.Remove(r.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := shimapi.RemoveShim(uri.RunDir, uri.Sandbox); err != nil {
			return err
		}
	}
	if _, err := shimapi.ReadExit(uri.RunDir, id); err == nil {
		return nil
	}
	return shimapi.WriteExit(uri.RunDir, shimapi.ExitRecord{
		ContainerID: id, SandboxID: uri.Sandbox, Pid: status.Pid,
		ExitCode: uint32(status.ExitStatus), ExitedAt: status.ExitedAt, ShimLost: true,
	})
}
