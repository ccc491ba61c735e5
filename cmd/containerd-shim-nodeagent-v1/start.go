//go:build linux

package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nodeagent/internal/shimapi"
)

// defaultSocketDir is containerd's own (defaults.DefaultStateDir + "/s").
const defaultSocketDir = "/run/containerd/s"

// start begins the shim of a group or finds it, and returns its address. Two first
// starts of a group at once would each take the other's socket for a dead one
// between bind and listen, and leave an orphan; so they take turns. And only the
// kernel's word that nobody listens is taken for it: containerd's own way gives a
// living shim 100 ms to be reached and then takes its socket away, which on a busy
// machine leaves an orphan as well.
func start(a arguments, p params, group string) (address string, err error) {
	path, err := socketPath(a, p, group)
	if err != nil {
		return "", err
	}
	unlock, err := shimapi.LockGroup(path)
	if err != nil {
		return "", fmt.Errorf("lock shim group: %w", err)
	}
	defer unlock()
	alive, err := shimapi.Listens(path)
	if err != nil {
		return "", fmt.Errorf("look for the shim of the group: %w", err)
	}
	if !alive {
		if err := begin(a, path); err != nil {
			return "", err
		}
	}
	return "unix://" + path, nil
}

// socketPath is the group's socket, named as containerd's library names it, and
// noted in the bundle for who cleans up there.
func socketPath(a arguments, p params, group string) (string, error) {
	dir := p.socketDir
	if dir == "" {
		dir = defaultSocketDir
	} else if err := noteSocketDir(dir); err != nil {
		return "", fmt.Errorf("note the directory of sockets in the bundle: %w", err)
	}
	return fmt.Sprintf("%s/%x", dir, sha256.Sum256([]byte(filepath.Join(p.address, a.namespace, group)))), nil
}

// noteSocketDir leaves the link "s" in the bundle, as containerd's library does.
func noteSocketDir(dir string) error {
	const link = "s"
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(dir, link)
}

// begin starts a shim on a socket that is made for it.
func begin(a arguments, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the socket of a dead shim: %w", err)
	}
	socket, err := listen(path)
	if err != nil {
		return fmt.Errorf("make the shim's socket: %w", err)
	}
	defer socket.Close()
	err = serve(a, socket)
	if err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// listen makes a socket that only its owner may use.
func listen(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	if err == nil {
		err = errors.Join(os.Chmod(path, 0o600), unix.Listen(fd, unix.SOMAXCONN))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), f.Close())
	}
	return f, nil
}
