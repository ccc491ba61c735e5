package ipvs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tool is the programs for one family.
type tool struct {
	f             fam
	save, restore string // paths
	nft           bool   // the kernel tells of changes
}

// Limits of one run.
const (
	commandTime = 30 * time.Second
	lockSeconds = "5" // how long another program may hold the xtables lock
	maxStderr   = 4096
)

func hasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}

// choose finds the programs, once.
func (b *Backend) choose(ctx context.Context) ([]tool, error) {
	if b.tools != nil {
		return b.tools, nil
	}
	flavour := ""
	if b.cfg.Flavour != nil {
		var err error
		if flavour, err = b.cfg.Flavour(ctx); err != nil {
			return nil, err
		}
	}
	var out []tool
	for _, f := range families() {
		t, err := find(ctx, f, flavour)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	b.tools = out
	return out, nil
}

// find looks for the programs under the flavour's names, or else the plain ones.
func find(ctx context.Context, f fam, flavour string) (tool, error) {
	bases := []string{f.command}
	if flavour != "" {
		bases = []string{f.command + "-" + flavour, f.command}
	}
	var missing error
	for _, base := range bases {
		save, err1 := exec.LookPath(base + "-save")
		restore, err2 := exec.LookPath(base + "-restore")
		if err := errors.Join(err1, err2); err != nil {
			missing = err
			continue
		}
		said, err := run(ctx, "", restore, "--version")
		if err != nil {
			return tool{}, err
		}
		return tool{f, save, restore, strings.Contains(said, "nf_tables")}, nil
	}
	return tool{}, fmt.Errorf("find the programs by which rules are written; install iptables: %w", missing)
}

// run runs a program to its end and returns what it printed.
func run(ctx context.Context, in, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	var out, said bytes.Buffer
	c := exec.CommandContext(ctx, path, args...)
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(in), &out, &said
	c.Env = append(os.Environ(), "LC_ALL=C")
	c.WaitDelay = 2 * time.Second
	err := c.Run()
	if err == nil {
		return out.String(), nil
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return "", fmt.Errorf("%s: %w: %.*s", join(append([]string{path}, args...)...), err, maxStderr, strings.TrimSpace(said.String()))
}

// read looks at the rules of all tables.
func (t tool) read(ctx context.Context) (inForce, error) {
	text, err := run(ctx, "", t.save)
	if err != nil {
		return inForce{}, fmt.Errorf("read rules: %w", err)
	}
	return parseSave(text), nil
}

func (t tool) write(ctx context.Context, text string) error {
	if text == "" {
		return nil
	}
	if _, err := run(ctx, text, t.restore, "--noflush", "-w", lockSeconds); err != nil {
		return fmt.Errorf("write rules: %w", err)
	}
	return nil
}

// The number and length of all rules of a legacy table, by IPT_SO_GET_INFO of
// include/uapi/linux/netfilter_ipv4/ip_tables.h and its sibling.
const (
	infoOption = 64
	infoLen    = 84
	infoCounts = 76
)

// counts change with almost every change of the legacy tables, of which the kernel
// tells nobody.
func (t tool) counts() uint64 {
	var all uint64
	for _, table := range tables {
		all = all*31 + t.count(table)
	}
	return all
}

func (t tool) count(table string) uint64 {
	family, level := unix.AF_INET, unix.SOL_IP
	if t.f.v6 {
		family, level = unix.AF_INET6, unix.SOL_IPV6
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	b := make([]byte, infoLen)
	copy(b, table)
	n := uint32(len(b))
	_, _, no := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), infoOption, uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
	if no != 0 {
		return 0
	}
	return uint64(binary.NativeEndian.Uint32(b[infoCounts:]))<<32 | uint64(binary.NativeEndian.Uint32(b[infoCounts+4:]))
}
