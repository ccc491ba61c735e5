package podnet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// netConf is one CNI configuration: the file's bytes, checked.
type netConf struct {
	file  string
	bytes []byte
	list  bool // a list of plugins; else a single one
}

// maxConf is the size in bytes of a configuration beyond which it is refused.
const maxConf = 1 << 20

// chooseConf reads the configuration directory anew. The first valid file by
// name is in force, as containerd and kubelet do it with max_conf_num 1. A
// file in force that stops being valid while it is there (an editor or daemon
// is writing it) stays in force as it was.
func (n *Network) chooseConf() {
	conf, bad, err := findConf(n.cfg.CNIConfDir)
	n.mu.Lock()
	was, wasErr := n.conf, n.confErr
	if conf == nil && was != nil && slices.Contains(bad, was.file) {
		conf, err = was, nil
	} else if conf != nil {
		err = nil
	}
	n.conf, n.confErr = conf, err
	n.mu.Unlock()
	switch {
	case err != nil && (wasErr == nil || wasErr.Error() != err.Error()):
		n.log.Error("no usable cni configuration", "error", err)
	case conf != nil && (was == nil || was.file != conf.file || !bytes.Equal(was.bytes, conf.bytes)):
		n.log.Info("cni configuration in force", "file", conf.file)
	case conf == nil && was != nil:
		n.log.Info("no cni configuration any more", "dir", n.cfg.CNIConfDir)
	}
}

// findConf returns the first valid configuration of dir. Without one, err says
// what was wrong with the files in bad; with no files at all both are empty.
func findConf(dir string) (conf *netConf, bad []string, err error) {
	if dir == "" {
		return nil, nil, nil
	}
	entries, err := os.ReadDir(dir) // sorted by name
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list cni configurations: %w", err)
	}
	var errs []error
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".conf", ".conflist", ".json":
		default:
			continue
		}
		path := filepath.Join(dir, e.Name())
		c, err := readConf(dir, path)
		if err == nil {
			return c, bad, nil
		}
		bad = append(bad, path)
		errs = append(errs, fmt.Errorf("use cni configuration %s: %w", path, err))
	}
	return nil, bad, errors.Join(errs...)
}

// readConf reads one file. Whoever can write it, or the directory, can make us
// run a program as root: both must be root's alone.
func readConf(dir, path string) (*netConf, error) {
	if err := rootOnly(dir); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if err := rootOnly(fmt.Sprintf("/proc/self/fd/%d", f.Fd())); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxConf+1))
	if err != nil {
		return nil, err
	}
	list, err := checkConf(b, filepath.Ext(path) == ".conflist")
	if err != nil {
		return nil, err
	}
	return &netConf{file: path, bytes: b, list: list}, nil
}

func rootOnly(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	if st.Uid != 0 {
		return fmt.Errorf("file or directory belongs to uid %d, not to root", st.Uid)
	}
	if st.Mode&0o022 != 0 {
		return fmt.Errorf("mode %#o of file or directory lets others than root write", st.Mode&0o777)
	}
	return nil
}

type pluginConf struct {
	Type string `json:"type"`
	IPAM struct {
		Type string `json:"type"`
	} `json:"ipam"`
}

// checkConf tells whether b is a configuration, and whether of a list. A file
// that is not named .conflist may hold a list all the same.
func checkConf(b []byte, wantList bool) (list bool, err error) {
	if len(b) > maxConf {
		return false, fmt.Errorf("more than %d bytes", maxConf)
	}
	var c struct {
		Name    string       `json:"name"`
		Plugins []pluginConf `json:"plugins"`
		pluginConf
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return false, fmt.Errorf("decode: %w", err)
	}
	if c.Name == "" {
		return false, errors.New("it has no name")
	}
	// libcni refuses a name that is no file name, too late for a good message.
	if strings.ContainsAny(c.Name, "/\\\x00") || c.Name == "." || c.Name == ".." {
		return false, fmt.Errorf("name %q is not a plain name", c.Name)
	}
	plugins := c.Plugins
	if list = wantList || len(plugins) > 0; !list {
		plugins = []pluginConf{c.pluginConf}
	}
	if len(plugins) == 0 {
		return list, errors.New("it has no plugins")
	}
	for _, p := range plugins {
		if p.Type == "" {
			return list, errors.New("a plugin has no type")
		}
		for _, t := range []string{p.Type, p.IPAM.Type} {
			// A type is a file name below the plugin directory and nothing
			// else (CVE-2021-20206).
			if strings.ContainsAny(t, "/\\\x00") || t == "." || t == ".." {
				return list, fmt.Errorf("plugin type %q is not a plain name", t)
			}
		}
	}
	return list, nil
}
