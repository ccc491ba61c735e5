package volume

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// maxHolders is how many processes an error names.
const maxHolders = 3

// holders says which processes keep a mount busy: pid and command. Their
// arguments are not told, since they may hold secrets.
func holders(point string) string {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return ""
	}
	var found []string
	for _, e := range procs {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !holds(pid, point) {
			continue
		}
		comm, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "comm"))
		found = append(found, fmt.Sprintf("pid %d (%s)", pid, strings.TrimSpace(string(comm))))
		if len(found) == maxHolders {
			break
		}
	}
	if len(found) == 0 {
		return ""
	}
	return " by " + strings.Join(found, ", ")
}

// holds tells whether the process has a directory, a file or a mapping there.
func holds(pid int, point string) bool {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	links := []string{dir + "/cwd", dir + "/root", dir + "/exe"}
	fds, _ := os.ReadDir(dir + "/fd")
	for _, fd := range fds {
		links = append(links, dir+"/fd/"+fd.Name())
	}
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && below(to, point) {
			return true
		}
	}
	maps, err := os.Open(dir + "/maps")
	if err != nil {
		return false
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		if i := strings.IndexByte(lines.Text(), '/'); i > 0 && below(lines.Text()[i:], point) {
			return true
		}
	}
	return false
}

// below tells whether path is dir or lies in it.
func below(path, dir string) bool {
	rest, ok := strings.CutPrefix(path, dir)
	return ok && (rest == "" || rest[0] == '/')
}
