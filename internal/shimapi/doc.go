// Package shimapi owns what the daemon, the command line and the shim say to
// each other: the log URI that a task's stdout carries, the exit record, the
// shim record, the requests on a shim's control socket, and the lock under which a
// group's shim begins and a dead one's names go.
//
// It never speaks to containerd, starts a process or decides anything, and it
// imports the standard library and x/sys only, so that the shim stays small.
// All functions are safe for concurrent use; a Client serves one request at a
// time, a Stream one reader and one writer.
package shimapi

import (
	"errors"
	"fmt"
)

// DefaultRunDir is where a daemon without other orders keeps its sockets and
// records.
const DefaultRunDir = "/run/nodeagent"

// Runtime is the containerd runtime name of the shim; containerd turns it into
// the name of the binary that begins it, containerd-shim-nodeagent-v1.
const Runtime = "io.containerd.nodeagent.v1"

// NoteFile holds a container's log URI in its bundle, for who has to clean up after
// a dead shim.
const NoteFile = "nodeagent-log"

// GroupAnnotation is the OCI annotation whose value, the sandbox id, makes all
// containers of a pod share one shim.
const GroupAnnotation = "io.containerd.runc.v2.group"

const maxID = 128

var errBadID = errors.New("id is empty, too long or holds other characters than letters, digits, '-', '_' and '.'")

// CheckID refuses an id that could leave the directory that it names a file in.
func CheckID(id string) error {
	if id == "" || len(id) > maxID || id[0] == '.' {
		return fmt.Errorf("check id %.140q: %w", id, errBadID)
	}
	for i := range len(id) {
		switch c := id[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return fmt.Errorf("check id %.140q: %w", id, errBadID)
		}
	}
	return nil
}
