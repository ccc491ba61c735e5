package gather

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"nodeagent/internal/hostcheck"
)

// socket is one TCP socket that listens.
type socket struct {
	addr  netip.AddrPort
	inode string
}

// listeners finds who listens on the ports that the daemon wants.
func (g *gatherer) listeners(ctx context.Context) (see, error) {
	var found []socket
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		all, err := listening(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("list sockets: %w", err)
		}
		for _, s := range all {
			if slices.ContainsFunc(g.Host.Ports, func(p hostcheck.Port) bool { return p.Number == int(s.addr.Port()) }) {
				found = append(found, s)
			}
		}
	}
	if len(found) == 0 {
		return nil, nil
	}
	holders, err := holders(ctx, found)
	own := g.ownPID()
	var all []hostcheck.Listener
	for _, s := range found {
		l := hostcheck.Listener{Port: int(s.addr.Port()), Addr: s.addr.String(), PID: holders[s.inode]}
		if l.PID > 0 {
			l.Name = nameOf(fmt.Sprintf("/proc/%d", l.PID))
			l.Own = l.PID == own
		}
		all = append(all, l)
	}
	return func(f *hostcheck.Facts) { f.Listeners = all }, err
}

// ownPID is the process of the daemon that holds the lock of the run directory.
func (g *gatherer) ownPID() int {
	pid, err := number(filepath.Join(g.RunDir, "lock"))
	if err != nil || nameOf(fmt.Sprintf("/proc/%d", pid)) != "nodeagent" {
		return 0
	}
	return pid
}

// listening reads the sockets in state LISTEN of /proc/net/tcp or tcp6.
func listening(file string) ([]socket, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []socket
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if s, ok := parseSocket(lines.Text()); ok {
			all = append(all, s)
		}
	}
	return all, lines.Err()
}

// parseSocket reads one line: "sl local remote st tx:rx tr:tm retr uid timeout
// inode …", the address in the machine's words of 32 bits.
func parseSocket(line string) (socket, bool) {
	f := strings.Fields(line)
	if len(f) < 10 || f[3] != "0A" {
		return socket{}, false
	}
	host, port, ok := strings.Cut(f[1], ":")
	raw, err := hex.DecodeString(host)
	if !ok || err != nil || len(raw)%4 != 0 {
		return socket{}, false
	}
	for i := 0; i < len(raw); i += 4 { // both of our machines are little-endian
		slices.Reverse(raw[i : i+4])
	}
	addr, ok := netip.AddrFromSlice(raw)
	n, err := strconv.ParseUint(port, 16, 16)
	return socket{netip.AddrPortFrom(addr.Unmap(), uint16(n)), f[9]}, ok && err == nil
}

// holders finds the processes of sockets by inode; 0 for one that cannot be seen.
func holders(ctx context.Context, sockets []socket) (map[string]int, error) {
	want := map[string]string{}
	for _, s := range sockets {
		want["socket:["+s.inode+"]"] = s.inode
	}
	found := map[string]int{}
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		if err := ctx.Err(); err != nil {
			return found, err
		}
		fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		for _, fd := range fds {
			target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
			if inode, ok := want[target]; err == nil && ok && found[inode] == 0 {
				found[inode] = pid
			}
		}
	}
	return found, nil
}
