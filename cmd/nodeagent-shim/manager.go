//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/log"

	"nodeagent/internal/shimapi"
)

// podManager is containerd's manager of runc shims, with an exit record from the
// cleaner of a dead one. How a pod's shim begins is containerd-shim-nodeagent-v1's.
type podManager struct{ shim.Shim }

func writeNote(bundle, uri string) error {
	return os.WriteFile(filepath.Join(bundle, shimapi.NoteFile), []byte(uri), 0o600)
}

// Stop is called by containerd when the shim of a container is dead. It kills
// what is left; the code is real where the shim had seen the exit, else 137.
func (m *podManager) Stop(ctx context.Context, id string) (shim.StopStatus, error) {
	cwd, err := os.Getwd()
	if err != nil {
		return shim.StopStatus{}, fmt.Errorf("find bundle: %w", err)
	}
	note, noteErr := os.ReadFile(filepath.Join(filepath.Dir(cwd), id, shimapi.NoteFile))
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
	var err error
	if _, unread := shimapi.ReadExit(uri.RunDir, id); unread != nil {
		err = shimapi.WriteExit(uri.RunDir, shimapi.ExitRecord{
			ContainerID: id, SandboxID: uri.Sandbox, Pid: status.Pid,
			ExitCode: uint32(status.ExitStatus), ExitedAt: status.ExitedAt, ShimLost: true,
		})
	}
	return errors.Join(err, removeDead(uri)) // which may wait for the next shim's start
}

// removeDead takes the names of a dead shim away. containerd runs a cleaner for each of
// its containers, and by the time of the last one the next shim may have the same names:
// it has them as soon as it listens, and begins under the group's lock only.
func removeDead(uri shimapi.LogURI) error {
	r, err := shimapi.ReadShim(uri.RunDir, uri.Sandbox)
	if err != nil || r.Alive() {
		return nil
	}
	unlock, err := shimapi.LockGroup(r.Socket)
	if err != nil {
		return fmt.Errorf("lock shim group: %w", err)
	}
	defer unlock()
	if next, err := shimapi.Listens(r.Socket); err != nil || next {
		return err
	}
	if err := os.Remove(r.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return shimapi.RemoveShim(uri.RunDir, uri.Sandbox)
}
