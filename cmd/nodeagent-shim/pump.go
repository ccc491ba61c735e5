//go:build linux

package main

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nodeagent/internal/logs"
)

const (
	pipeSize   = 256 << 10 // what a container may write ahead of us
	smallRead  = 4 << 10
	largeRead  = 64 << 10
	drainLimit = 2 * pipeSize
)

// Buffers are taken only while there is something to read: a waiting pump
// holds none, and a quiet container never needs a large one.
var (
	smallBufs = sync.Pool{New: func() any { b := make([]byte, smallRead); return &b }}
	largeBufs = sync.Pool{New: func() any { b := make([]byte, largeRead); return &b }}
)

// pump carries one stream of a container from its pipe to log and clients.
type pump struct {
	file   *os.File
	raw    syscall.RawConn
	stream *logs.Stream
	tee    func([]byte)

	drains chan chan struct{} // a request: answer when the pipe is empty
	done   chan struct{}      // closed at the end of the output

	busy bool // the last read filled the small buffer
	buf  *[]byte
	n    int
	err  error
}

func newPump(file *os.File, stream *logs.Stream, tee func([]byte)) (*pump, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &pump{
		file: file, raw: raw, stream: stream, tee: tee,
		drains: make(chan chan struct{}, 1), done: make(chan struct{}),
	}, nil
}

// run ends at the end of the output or when the file is closed.
func (p *pump) run() {
	defer close(p.done)
	defer p.file.Close()
	defer func() { p.stream.Flush() }()
	read := p.read // one closure for all reads
	for {
		err := p.raw.Read(read)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if p.drain() {
				return
			}
		case err != nil || !p.consume():
			return
		}
	}
}

// read reads once; false means "wait until there is something".
func (p *pump) read(fd uintptr) bool {
	pool := &smallBufs
	if p.busy {
		pool = &largeBufs
	}
	p.buf = pool.Get().(*[]byte)
	p.n, p.err = readNonblocking(int(fd), *p.buf)
	if errors.Is(p.err, unix.EAGAIN) {
		pool.Put(p.buf)
		p.buf, p.busy = nil, false
		return false
	}
	return true
}

// consume stores what was read; false at the end of the output.
func (p *pump) consume() bool {
	data := (*p.buf)[:max(p.n, 0)]
	if len(data) > 0 {
		p.tee(data)
		p.stream.Write(data)
	}
	if len(*p.buf) == largeRead {
		p.busy = len(data) >= smallRead
		largeBufs.Put(p.buf)
	} else {
		p.busy = len(data) == smallRead
		smallBufs.Put(p.buf)
	}
	p.buf = nil
	return p.err == nil && len(data) > 0
}

// drain empties the pipe without waiting, answers the request, and tells
// whether the output has ended. A process that outlives the container's init
// and writes on may not keep it here: more than a full pipe is not from before.
func (p *pump) drain() (ended bool) {
	var answer chan struct{}
	select {
	case answer = <-p.drains:
	default:
		return false
	}
	_ = p.file.SetReadDeadline(time.Time{})
	for total := 0; total < drainLimit && !ended; total += p.n {
		empty := false
		if err := p.raw.Control(func(fd uintptr) { empty = !p.read(fd) }); err != nil {
			ended = true
			break
		}
		if empty {
			break
		}
		ended = !p.consume()
	}
	if !ended {
		p.stream.Flush()
	}
	close(answer)
	return ended
}

// flushed waits until all that the pipe holds now is written, at most until
// the deadline; it tells whether it is.
func (p *pump) flushed(deadline <-chan struct{}) bool {
	answer := make(chan struct{})
	select {
	case p.drains <- answer:
		_ = p.file.SetReadDeadline(time.Unix(1, 0))
	case <-p.done:
		return true
	}
	select {
	case <-answer:
		return true
	case <-p.done:
		return true
	case <-deadline:
	}
	select { // both may have come while nobody ran here
	case <-answer:
		return true
	case <-p.done:
		return true
	default:
		return false
	}
}

// close gives up on what may still come and waits for the pump's end, at most
// until the deadline; it tells whether it has ended.
func (p *pump) close(deadline <-chan struct{}) bool {
	_ = p.file.Close()
	select {
	case <-p.done:
		return true
	case <-deadline:
	}
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func readNonblocking(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// newPipe returns both ends of a pipe; the end that we keep does not block, so
// that waiting for it costs no thread, the container's end does.
func newPipe(keepRead bool) (ours, theirs *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, err
	}
	keep, give := fds[0], fds[1]
	if !keepRead {
		keep, give = give, keep
	}
	if keepRead {
		_, _ = unix.FcntlInt(uintptr(keep), unix.F_SETPIPE_SZ, pipeSize) // over the user's limit: stays at 64 KiB
	}
	if err := unix.SetNonblock(keep, true); err != nil {
		_, _ = unix.Close(keep), unix.Close(give)
		return nil, nil, err
	}
	return os.NewFile(uintptr(keep), "container"), os.NewFile(uintptr(give), "stdio"), nil
}
