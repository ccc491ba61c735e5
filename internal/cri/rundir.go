package cri

import (
	"fmt"
	"os"
	"path/filepath"
)

// prepareRunDir makes the directories of this package, and takes away what is
// in the way of them and of the files in them: no litter keeps the daemon from
// starting or a container from being stopped.
func (n *Native) prepareRunDir() error {
	for _, name := range []string{"ns", "exit", "started", "stop", "shim", "exec"} {
		dir := filepath.Join(n.cfg.RunDir, name)
		if st, err := os.Lstat(dir); err == nil && !st.IsDir() {
			n.log.Warn("remove what is no directory of ours", "path", dir)
			_ = os.Remove(dir) // MkdirAll tells
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make run directory: %w", err)
		}
	}
	for _, name := range []string{"exit", "started", "stop", "shim"} {
		n.removeDirectories(filepath.Join(n.cfg.RunDir, name))
	}
	return nil
}

// removeDirectories removes the directories in dir, which holds files only.
func (n *Native) removeDirectories(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		n.log.Warn("cannot list a run directory", "err", err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		n.log.Warn("remove a directory in place of a file of ours", "path", path)
		if err := os.RemoveAll(path); err != nil {
			n.log.Warn("cannot remove it", "path", path, "err", err)
		}
	}
}
