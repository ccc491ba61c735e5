// Package power owns the cutting of a disk's power in tests: the only caller of
// EXT4_IOC_SHUTDOWN; and the mount that comes after it. Safe for concurrent use.
package power

import (
	"os"

	"golang.org/x/sys/unix"
)

// Kind is what a file system does about its end.
type Kind int

// The last drops what the journal holds in memory, as a power cut does; the
// first two write more than was asked for, which must not matter.
const (
	FlushAll Kind = iota
	FlushJournal
	FlushNothing
)

func (k Kind) String() string {
	return [...]string{"flush all", "flush the journal", "flush nothing"}[k]
}

// Cut ends the ext4 file system mounted at dir: every call on it fails until it
// is mounted anew.
func Cut(dir string, k Kind) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	const shutdown = 0x8004587D // EXT4_IOC_SHUTDOWN
	return unix.IoctlSetPointerInt(int(f.Fd()), shutdown, int(k))
}
