package cgroups

import (
	"errors"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// oomGroupFile says whether the kernel kills all processes of a cgroup together.
const oomGroupFile = "memory.oom.group"

// keepOOMGroup has every container of a pod end as a whole when the kernel kills
// for memory. The OCI runtime has said so in a file for which the systemd of a
// scope has no property, and which it therefore sets to 0 whenever it writes what
// it knows of the scope: at each "systemctl daemon-reload", to start with. So the
// containers are watched from when they are made; one that the runtime has not
// told yet gets the 1 before it. That is not reported as a foreign change: nobody
// has done wrong, and each reload does it to every container. p.mu is held.
func (t *Tree) keepOOMGroup(p *podCgroup) error {
	if !t.oomGroup {
		return nil
	}
	var errs []error
	dir := t.dir("memory", p.path)
	for _, name := range children(dir) {
		if !strings.HasPrefix(name, scopePrefix+"-") {
			continue
		}
		scope := filepath.Join(dir, name)
		t.watchDir(scope, target{pod: p, below: true}) // before it is read
		errs = append(errs, t.setOOMGroup(filepath.Join(scope, oomGroupFile)))
	}
	if err := errors.Join(errs...); err != nil {
		return limitError(p.path, err)
	}
	return nil
}

// setOOMGroup writes the 1 where it is not; a container that has ended meanwhile
// needs none.
func (t *Tree) setOOMGroup(file string) error {
	read, err := readControl(file)
	if err == nil && strings.TrimSpace(read) != "1" {
		err = t.kernel.Write(file, "1")
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
