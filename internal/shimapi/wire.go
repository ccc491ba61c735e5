package shimapi

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// Verbs of the control socket. A connection carries one request, one line of
// JSON, and one response, one line of JSON; after the response to attach both
// sides speak frames.
const (
	VerbExit   = "exit"
	VerbStats  = "stats"
	VerbAttach = "attach"
	VerbResize = "resize"
)

// Request is a line from a client to the shim.
type Request struct {
	Verb      string `json:"verb"`
	Container string `json:"container,omitempty"`
	Force     bool   `json:"force,omitempty"` // exit: also with living containers
	Stdin     bool   `json:"stdin,omitempty"`
	Stdout    bool   `json:"stdout,omitempty"`
	Stderr    bool   `json:"stderr,omitempty"`
	TTY       bool   `json:"tty,omitempty"` // attach: refuse a container without a terminal
	Width     uint16 `json:"width,omitempty"`
	Height    uint16 `json:"height,omitempty"`
}

// Response is the shim's line in return.
type Response struct {
	Error string `json:"error,omitempty"`
	Stats *Stats `json:"stats,omitempty"`
}

// Stats is what a shim knows of its containers' logs.
type Stats struct {
	Pid        int              `json:"pid"`
	Goroutines int              `json:"goroutines"`
	Containers []ContainerStats `json:"containers"`
}

// ContainerStats counts since the start of the container.
type ContainerStats struct {
	ID       string `json:"id"`
	Running  bool   `json:"running"` // its init has not been reaped
	Attached int    `json:"attached"`
	LogStats
}

// LogStats counts what became of a container's output.
type LogStats struct {
	Bytes        uint64 `json:"bytes"`        // raw bytes read from the container
	Lines        uint64 `json:"lines"`        // log lines written, partial ones included
	Rotations    uint64 `json:"rotations"`    // files closed for being full
	DroppedFiles uint64 `json:"droppedFiles"` // whole files removed by rotation or a full disk
	DroppedBytes uint64 `json:"droppedBytes"` // bytes of log records that never reached a file
	DroppedLines uint64 `json:"droppedLines"`
	LastError    string `json:"lastError,omitempty"` // why the last bytes were dropped; empty once healed
}

// RequestMax bounds a request or response line.
const RequestMax = 64 << 10

// WriteLine sends v as one line of JSON.
func WriteLine(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(data, '\n'))
	return err
}

var errLineTooLong = errors.New("line of more than 64 KiB")

// ReadLine reads one line of JSON of at most RequestMax bytes into v.
func ReadLine(r *bufio.Reader, v any) error {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > RequestMax:
			return errLineTooLong
		case err == nil:
			dec := json.NewDecoder(bytes.NewReader(line))
			dec.DisallowUnknownFields()
			return dec.Decode(v)
		case !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
	}
}

// FrameType tells what the payload of a frame is.
type FrameType byte

// Frames of an attached connection. Stdin and CloseStdin go to the shim, the
// others come from it. Dropped ends a stream whose client read too slowly;
// Exit ends it after the container closed its output.
const (
	FrameStdin FrameType = iota
	FrameStdout
	FrameStderr
	FrameCloseStdin
	FrameDropped
	FrameExit
)

// FrameMax bounds the payload of a frame.
const FrameMax = 64 << 10

// FrameHeader is the size of a frame's head: type, then length (big endian).
const FrameHeader = 5

// PutFrameHeader writes the head of a frame of n payload bytes into b.
func PutFrameHeader(b []byte, t FrameType, n int) {
	b[0] = byte(t)
	binary.BigEndian.PutUint32(b[1:FrameHeader], uint32(n))
}

// ReadFrame reads a frame; the payload is in buf, which is grown when needed
// up to FrameMax.
func ReadFrame(r io.Reader, buf []byte) (FrameType, []byte, error) {
	var head [FrameHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > FrameMax || FrameType(head[0]) > FrameExit {
		return 0, nil, fmt.Errorf("read frame: type %d with %d bytes", head[0], n)
	}
	if int(n) > cap(buf) {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return 0, nil, fmt.Errorf("read frame: %w", err)
	}
	return FrameType(head[0]), buf, nil
}

// socketPathMax is the size of sun_path (unix(7)) less the final NUL.
const socketPathMax = 107

// WithSocketPath calls do with a path of the sandbox's control socket that
// fits into a socket address: the path itself, or one through /proc/self/fd.
func WithSocketPath(runDir, sandbox string, do func(path string) error) error {
	if err := CheckID(sandbox); err != nil {
		return err
	}
	name := sandbox + ".sock"
	full := filepath.Join(ShimDir(runDir), name)
	if len(full) <= socketPathMax {
		return do(full)
	}
	dir, err := os.Open(ShimDir(runDir))
	if err != nil {
		return err
	}
	defer dir.Close()
	short := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name
	if len(short) > socketPathMax {
		return fmt.Errorf("sandbox id %.20s… is too long for a socket name", sandbox)
	}
	return do(short)
}

// Listen makes the sandbox's control socket, 0600, in place of one that a dead
// shim left. Closing the listener does not remove it: RemoveShim does.
func Listen(runDir, sandbox string) (*net.UnixListener, error) {
	if err := os.MkdirAll(ShimDir(runDir), 0o700); err != nil {
		return nil, fmt.Errorf("make shim directory: %w", err)
	}
	var l *net.UnixListener
	err := WithSocketPath(runDir, sandbox, func(path string) error {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		var err error
		if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
			return err
		}
		l.SetUnlinkOnClose(false)
		if err := os.Chmod(path, 0o600); err != nil {
			return errors.Join(err, l.Close())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listen on control socket: %w", err)
	}
	return l, nil
}
