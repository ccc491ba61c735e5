package poddir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/mkdir"
)

// LinkLog makes /var/log/containers/<pod>_<namespace>_<container>-<id>.log lead
// to the container's log, where log collectors look.
func (d *Dirs) LinkLog(p *corev1.Pod, container, id, log string) error {
	if d.cfg.ContainersLogsDir == "" {
		return nil
	}
	link, err := d.link(p.Namespace, p.Name, container, id)
	if err != nil {
		return err
	}
	if err := mkdir.All(d.cfg.ContainersLogsDir, 0o755); err != nil {
		return fmt.Errorf("link the container's log: %w", err)
	}
	if err := os.Symlink(log, link); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("link the container's log: %w", err)
	}
	return nil
}

// UnlinkLog removes that link.
func (d *Dirs) UnlinkLog(namespace, name, container, id string) error {
	if d.cfg.ContainersLogsDir == "" {
		return nil
	}
	link, err := d.link(namespace, name, container, id)
	if err != nil {
		return err
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unlink the container's log: %w", err)
	}
	return nil
}

func (d *Dirs) link(namespace, name, container, id string) (string, error) {
	if err := plain(namespace, name, container, id); err != nil {
		return "", err
	}
	return filepath.Join(d.cfg.ContainersLogsDir, name+"_"+namespace+"_"+container+"-"+id+".log"), nil
}

// unlinkLogs removes the links in /var/log/containers that lead into the log
// directory.
func (d *Dirs) unlinkLogs(dir string) error {
	if d.cfg.ContainersLogsDir == "" {
		return nil
	}
	// <pod>_<namespace>_<container>-<id>.log, where the directory is
	// <namespace>_<pod>_<uid>.
	parts := strings.Split(filepath.Base(dir), "_")
	if len(parts) != 3 {
		return nil
	}
	links, err := filepath.Glob(filepath.Join(d.cfg.ContainersLogsDir, parts[1]+"_"+parts[0]+"_*.log"))
	if err != nil {
		return err
	}
	var errs []error
	for _, link := range links {
		if to, err := os.Readlink(link); err != nil || !strings.HasPrefix(to, dir+"/") {
			continue
		}
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
