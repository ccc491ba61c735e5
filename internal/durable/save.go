package durable

import (
	"crypto/rand"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"nodeagent/internal/failpoint"
)

// Save writes payload as the new generation of name. When it returns nil, the
// content survives a power cut. When it returns an error, Load gives what it
// gave before or, if only the last fsync failed, perhaps the new content: an
// fsync that fails means "not written", so the caller tries again.
//
// The exchange of old and new is one atomic rename, so there is no instant
// without a current generation.
func (d *Dir) Save(name string, version uint32, payload []byte) error {
	if err := checkName(name); err != nil {
		return err
	}
	if len(payload) > MaxPayload {
		return fmt.Errorf("save state file %s: %d bytes are more than %d", d.full(name), len(payload), MaxPayload)
	}
	fd, err := d.open()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	temp := tempPrefix + rand.Text()
	err = d.replace(fd, temp, name, encode(version, payload))
	if err != nil {
		// Best effort: Prepare removes it otherwise.
		_ = unix.Unlinkat(fd, temp, 0)
		return fmt.Errorf("save state file %s: %w", d.full(name), err)
	}
	return nil
}

func (d *Dir) replace(dir int, temp, name string, content []byte) error {
	if err := failpoint.At(failpoint.DurableWriteBefore); err != nil {
		return err
	}
	if err := writeSynced(dir, temp, content); err != nil {
		return err
	}
	if err := failpoint.At(failpoint.DurableRenameBefore); err != nil {
		return err
	}
	if err := swap(dir, temp, name); err != nil {
		return err
	}
	if err := failpoint.At(failpoint.DurableRenameAfter); err != nil {
		return err
	}
	if err := unix.Fsync(dir); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return failpoint.At(failpoint.DurableSyncAfter)
}

func writeSynced(dir int, temp string, content []byte) error {
	fd, err := unix.Openat(dir, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("create temporary file: %w", err)
	}
	for rest := content; len(rest) > 0 && err == nil; {
		var n int
		n, err = unix.Write(fd, rest)
		if errors.Is(err, unix.EINTR) {
			err = nil
		}
		rest = rest[max(n, 0):]
	}
	if err == nil {
		// Late ENOSPC and EIO of delayed allocation show up here only.
		err = unix.Fsync(fd)
	}
	if e := unix.Close(fd); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("write temporary file: %w", err)
	}
	return nil
}

// swap makes temp the current generation of name and the current one the
// previous.
func swap(dir int, temp, name string) error {
	err := unix.Renameat2(dir, temp, dir, name, unix.RENAME_EXCHANGE)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		// There is no current one yet, or the file system cannot exchange.
		return renameTwice(dir, temp, name)
	case err != nil:
		return fmt.Errorf("exchange generations: %w", err)
	}
	if err := unix.Renameat(dir, temp, dir, name+prevSuffix); err != nil {
		return fmt.Errorf("keep previous generation: %w", err)
	}
	return nil
}

// renameTwice does it with two renames; a cut between them leaves the previous
// generation, which Load falls back to.
func renameTwice(dir int, temp, name string) error {
	err := unix.Renameat(dir, name, dir, name+prevSuffix)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("keep previous generation: %w", err)
	}
	if err := unix.Renameat(dir, temp, dir, name); err != nil {
		return fmt.Errorf("rename temporary file: %w", err)
	}
	return nil
}
