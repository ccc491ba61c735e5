package guest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// toDisk are the modules between a guest's kernel and its disk and its wire, some of
// which an architecture's kernel has inside.
var toDisk = []string{"virtio_pci", "virtio_blk", "virtio_console", "ext4"}

// toRoot mounts the disk and goes on there. Debian's own initrd, which finds any disk
// of any machine, unpacks 53 MB for that and starts udev.
const toRoot = `#!/bin/busybox sh
set -e
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
for module in /modules/*; do
	[ ! -e "$module" ] || insmod "$module"
done
init=/sbin/init
for word in $(cat /proc/cmdline); do
	case $word in init=*) init=${word#init=} ;; esac
done
mount -t ext4 /dev/vda /root
umount /proc
mount -o move /dev /root/dev
exec switch_root /root "$init" "$@"
`

// initrd makes one for the kernel in the tree at root, with what that tree has.
func initrd(root string) ([]byte, error) {
	modules, err := modulesOf(root, toDisk)
	if err != nil {
		return nil, err
	}
	var a archive
	for _, dir := range []string{"bin", "dev", "modules", "proc", "root"} {
		a.add(dir, dirMode, nil)
	}
	if err := a.copy("bin/busybox", filepath.Join(root, "bin/busybox")); err != nil {
		return nil, err
	}
	for i, path := range modules {
		if err := a.copy(fmt.Sprintf("modules/%02d-%s", i, filepath.Base(path)), path); err != nil {
			return nil, err
		}
	}
	a.add("init", fileMode, []byte(toRoot))
	return a.end(), nil
}

// modulesOf returns the files of modules and of those they need, in the order in which
// they load; what the kernel has inside is not among them.
func modulesOf(root string, names []string) ([]string, error) {
	dirs, err := filepath.Glob(filepath.Join(root, "lib/modules/*"))
	if err != nil || len(dirs) != 1 {
		return nil, errors.Join(fmt.Errorf("find the guest's modules: there are %q", dirs), err)
	}
	needs, err := os.ReadFile(filepath.Join(dirs[0], "modules.dep"))
	if err != nil {
		return nil, err
	}
	inside, err := os.ReadFile(filepath.Join(dirs[0], "modules.builtin"))
	if err != nil {
		return nil, err
	}
	var all []string
	for _, name := range names {
		if bytes.Contains(inside, []byte("/"+name+".ko\n")) {
			continue
		}
		own := dependencies(string(needs), name)
		if own == nil {
			return nil, fmt.Errorf("the guest's kernel %s has no module %s", filepath.Base(dirs[0]), name)
		}
		for _, path := range own {
			if path = filepath.Join(dirs[0], path); !slices.Contains(all, path) {
				all = append(all, path)
			}
		}
	}
	return all, nil
}

// dependencies are the files that modules.dep names for a module, first those that
// load first: it has them the other way round.
func dependencies(needs, name string) []string {
	for line := range strings.Lines(needs) {
		path, more, _ := strings.Cut(line, ":")
		if filepath.Base(path) != name+".ko" {
			continue
		}
		all := append([]string{path}, strings.Fields(more)...)
		slices.Reverse(all)
		return all
	}
	return nil
}

// archive is a cpio in the format that the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst), not compressed: to
// decompress is dear in emulation.
type archive struct{ bytes.Buffer }

const (
	dirMode  = 0o040755
	fileMode = 0o100755
)

func (a *archive) add(name string, mode int, data []byte) {
	fmt.Fprintf(a, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	a.pad()
	a.Write(data)
	a.pad()
}

func (a *archive) copy(name, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("make the guest's initrd: %w", err)
	}
	a.add(name, fileMode, data)
	return nil
}

// pad: headers and contents begin at multiples of four.
func (a *archive) pad() {
	for a.Len()%4 != 0 {
		a.WriteByte(0)
	}
}

func (a *archive) end() []byte {
	a.add("TRAILER!!!", 0, nil)
	return a.Bytes()
}
