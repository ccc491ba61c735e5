package ipvs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Until 5.9 the kernel waited a second with a connection whose port was in use a
// moment ago, if it was told to look for a better endpoint.
const (
	reuseMajor = 5
	reuseMinor = 9
)

// setting is a value below /proc/sys/net.
type setting struct{ key, value string }

// settings are those that serving by IPVS needs.
func (b *Backend) settings(release string) []setting {
	out := []setting{
		{"ipv4/vs/conntrack", "1"},                 // what is served can be masqueraded, and matched by state
		{"ipv4/vs/expire_nodest_conn", "1"},        // a flow whose endpoint is gone is led to another
		{"ipv4/vs/expire_quiescent_template", "1"}, // so is a client with affinity to it
		{"ipv4/ip_forward", "1"},
	}
	if before(release, reuseMajor, reuseMinor) {
		out = append(out, setting{"ipv4/vs/conn_reuse_mode", "0"})
	}
	if b.cfg.StrictARP {
		out = append(out, setting{"ipv4/conf/all/arp_ignore", "1"}, setting{"ipv4/conf/all/arp_announce", "2"})
	}
	return out
}

// before tells whether a kernel is older than a version.
func before(release string, major, minor int) bool {
	parts := strings.FieldsFunc(release, func(r rune) bool { return r < '0' || r > '9' })
	if len(parts) < 2 {
		return false
	}
	x, _ := strconv.Atoi(parts[0])
	y, _ := strconv.Atoi(parts[1])
	return x < major || (x == major && y < minor)
}

// tune writes the settings that have another value; what the kernel lacks is left
// out.
func (b *Backend) tune(root string) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("ask for the kernel's version: %w", err)
	}
	var errs []error
	for _, s := range b.settings(unix.ByteSliceToString(u.Release[:])) {
		path := filepath.Join(root, s.key)
		is, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || (err == nil && string(bytes.TrimSpace(is)) == s.value) {
			continue
		}
		if err == nil {
			err = os.WriteFile(path, []byte(s.value), 0o644)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("set net/%s to %s: %w", s.key, s.value, err))
		}
	}
	return errors.Join(errs...)
}
