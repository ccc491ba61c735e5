package machine

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// FileSystem is how full the file system of a directory is. Available is what is left
// for who is not root.
type FileSystem struct {
	Device                    string // /dev/sda1; of one without a disk its number
	Capacity, Available, Used uint64 // bytes
	Inodes, InodesFree        uint64
}

// ReadFileSystem reads how full the file system of dir is.
func ReadFileSystem(dir string) (FileSystem, error) {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return FileSystem{}, fmt.Errorf("read how full the file system of %s is: %w", dir, err)
	}
	if err := unix.Stat(dir, &st); err != nil {
		return FileSystem{}, fmt.Errorf("read which file system %s is on: %w", dir, err)
	}
	size := uint64(fs.Bsize)
	return FileSystem{
		Device:   device(st.Dev),
		Capacity: fs.Blocks * size, Available: fs.Bavail * size, Used: (fs.Blocks - fs.Bfree) * size,
		Inodes: fs.Files, InodesFree: fs.Ffree,
	}, nil
}

func device(number uint64) string {
	name := fmt.Sprintf("%d:%d", unix.Major(number), unix.Minor(number))
	if link, err := os.Readlink("/sys/dev/block/" + name); err == nil {
		return "/dev/" + filepath.Base(link)
	}
	return name
}
