package logs

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Config describes the log of one container.
type Config struct {
	Path     string // absolute path of the current file, …/<pod>/<container>/<n>.log
	MaxSize  int64  // bytes a file may reach before it is rotated; 0: never
	MaxFiles int    // files kept, the current one included; at least 1 if MaxSize > 0
	Now      func() time.Time
}

// Stats counts what became of a container's output since the Writer was made.
type Stats struct {
	Bytes        uint64 // raw bytes taken in
	Lines        uint64 // records written, partial ones included
	Rotations    uint64 // files closed for being full
	DroppedFiles uint64 // whole files removed by rotation or a full disk
	DroppedBytes uint64 // bytes of records that never reached a file
	DroppedLines uint64 // records that never reached a file
	LastError    string // why the last record was dropped; empty once healed
}

// Writer writes the log of one container. On disk there is never more than
// MaxSize × MaxFiles, or one record where that alone is longer than MaxSize.
type Writer struct {
	cfg       Config
	dir, name string

	mu      sync.Mutex
	stats   Stats
	file    file
	rotated []string // names of the rotated files, oldest first
	out     []byte   // records not yet written; held only while a Stream writes
	lent    *[]byte  // what out was made from, and the pool it goes back to
	pool    *sync.Pool
	clock   stamp
	now     time.Time // of the piece in hand
	checked time.Time // when the file was last compared with its name
	retryAt time.Time // after a failure everything is dropped until then
	closed  bool
}

// New checks the configuration; it touches no file.
func New(cfg Config) (*Writer, error) {
	switch {
	case !filepath.IsAbs(cfg.Path) || filepath.Clean(cfg.Path) != cfg.Path || cfg.Path == "/":
		return nil, errors.New("log path is not absolute and clean")
	case strings.ContainsRune(cfg.Path, 0):
		return nil, errors.New("log path holds a NUL")
	case cfg.MaxSize < 0 || cfg.MaxFiles < 0 || (cfg.MaxSize > 0 && cfg.MaxFiles == 0):
		return nil, errors.New("log limits make no sense")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	dir, name := filepath.Split(cfg.Path)
	return &Writer{cfg: cfg, dir: filepath.Clean(dir), name: name, file: noFile}, nil
}

// Open makes the directory and the file, so that they exist before the first
// line. An error is worth a warning only: each later write tries again.
func (w *Writer) Open() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.cfg.Now()
	return w.open()
}

// Stream returns a writer of one of the container's streams.
func (w *Writer) Stream(name Name) *Stream {
	head := append(make([]byte, stampLen, stampLen+len(" stdout F ")), " "+string(name)+" F "...)
	return &Stream{w: w, head: head}
}

// Stats returns the counters.
func (w *Writer) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stats
}

// Close closes the file. Streams must be flushed before; what they write
// afterwards is dropped.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	return w.file.close()
}

// outSize lets one chunk of a full pipe become one write; smallOut serves the
// usual piece, a few lines, so that a quiet container costs no large buffer.
const (
	outSize    = 128 << 10
	smallOut   = 8 << 10
	smallPiece = 4 << 10
)

var (
	largePool = sync.Pool{New: func() any { b := make([]byte, 0, outSize); return &b }}
	smallPool = sync.Pool{New: func() any { b := make([]byte, 0, smallOut); return &b }}
)

// begin takes the time and a buffer for a piece of n raw bytes; end gives the
// buffer back.
func (w *Writer) begin(n int) {
	w.now = w.cfg.Now()
	w.clock.set(w.now)
	w.stats.Bytes += uint64(n)
	w.pool = &largePool
	if n <= smallPiece {
		w.pool = &smallPool
	}
	w.lent = w.pool.Get().(*[]byte)
	w.out = (*w.lent)[:0]
	if w.file.fd < 0 && !w.now.Before(w.retryAt) {
		_ = w.openOrDrop() // now, to know its size; flush tries again and reports
	}
}

func (w *Writer) end() {
	w.flush()
	w.pool.Put(w.lent)
	w.out, w.lent, w.pool = nil, nil, nil
}

// emit appends the record of a+b, beginning with head; it flushes and rotates as
// the limits demand.
func (w *Writer) emit(head []byte, tag byte, a, b []byte) {
	need := len(head) + len(a) + len(b) + 1
	if at := w.file.size + int64(len(w.out)); w.cfg.MaxSize > 0 && at > 0 && at+int64(need) > w.cfg.MaxSize {
		w.flush()
		w.rotateIfFull(need)
	}
	if len(w.out)+need > cap(w.out) {
		w.flush()
		if need > cap(w.out) { // a long line came in small pieces
			w.pool.Put(w.lent)
			w.pool = &largePool
			w.lent = w.pool.Get().(*[]byte)
			w.out = (*w.lent)[:0]
		}
	}
	at := len(w.out)
	w.out = w.out[:at+need]
	out := w.out[at:]
	n := copy(out, head)
	out[n-2] = tag
	if len(a) > 0 {
		n += copy(out[n:], a)
	}
	n += copy(out[n:], b)
	out[n] = '\n'
}

// lose counts the records in b as dropped and rests for a moment.
func (w *Writer) lose(b []byte, err error) {
	w.stats.DroppedBytes += uint64(len(b))
	w.stats.DroppedLines += uint64(bytes.Count(b, newline))
	w.stats.LastError = err.Error()
}

var newline = []byte{'\n'}
