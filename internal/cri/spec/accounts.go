package spec

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// maxAccounts bounds /etc/passwd and /etc/group of an image (CVE-2026-47262:
// a huge group file).
const maxAccounts = 1 << 20

// Accounts are an image's /etc/passwd and /etc/group; nil where there is no
// such file. They depend on the layers only, so that they may be kept by chain
// id.
type Accounts struct {
	Passwd, Group []byte // hostile
}

// ReadAccounts reads /etc/passwd and /etc/group below the root file system dir.
// Links are resolved inside dir only. A file over 1 MiB, or one that is not
// regular, is refused.
func ReadAccounts(dir string) (Accounts, error) {
	passwd, err := readAccount(dir, "etc/passwd")
	if err != nil {
		return Accounts{}, err
	}
	group, err := readAccount(dir, "etc/group")
	if err != nil {
		return Accounts{}, err
	}
	return Accounts{Passwd: passwd, Group: group}, nil
}

func readAccount(dir, name string) ([]byte, error) {
	b, err := readBeneath(dir, name, unix.RESOLVE_IN_ROOT, maxAccounts)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return nil, nil
	case errors.Is(err, unix.ELOOP):
		return nil, refuse("the image's %s is a loop of links", name)
	case err != nil:
		return nil, fmt.Errorf("read the image's accounts: %w", err)
	}
	return b, nil
}

// CheckRootfs refuses a root file system whose /proc, /sys or /dev is not a
// directory: the runtime would mount through a link of the image's making.
func CheckRootfs(dir string) error {
	for _, name := range []string{"proc", "sys", "dev"} {
		var st unix.Stat_t
		err := unix.Lstat(dir+"/"+name, &st)
		switch {
		case errors.Is(err, unix.ENOENT):
		case err != nil:
			return &os.PathError{Op: "lstat", Path: "/" + name, Err: err}
		case st.Mode&unix.S_IFMT != unix.S_IFDIR:
			return refuse("the image's /%s is not a directory", name)
		}
	}
	return nil
}
