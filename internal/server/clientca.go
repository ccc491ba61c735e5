package server

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"
)

// maxCAFile is more than any bundle of authorities has.
const maxCAFile = 1 << 20

// clientCA is the file of those who sign client certificates. It is looked at
// when it is asked for, which costs one stat and needs nobody to watch; what
// cannot be read leaves what was known before.
type clientCA struct {
	path string
	log  *slog.Logger

	mu    sync.Mutex
	seen  fileID
	roots *x509.CertPool
}

// fileID tells one content of a file from the next.
type fileID struct {
	inode   uint64
	size    int64
	changed time.Time // ctime: no tool can set it back
	err     string    // why there is none
}

func (c *clientCA) pool() *x509.CertPool {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := identify(c.path)
	if c.roots != nil && id == c.seen {
		return c.roots
	}
	told := id == c.seen
	c.seen = id
	roots, err := readRoots(c.path)
	switch {
	case err == nil:
		c.roots = roots
		return roots
	case !told:
		c.log.Warn("cannot read the authorities of client certificates: those read before go on to count", "path", c.path, "err", err)
	}
	if c.roots == nil {
		return x509.NewCertPool() // nil would be the system's
	}
	return c.roots
}

func identify(path string) fileID {
	info, err := os.Stat(path)
	if err != nil {
		return fileID{err: err.Error()}
	}
	id := fileID{size: info.Size()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.inode, id.changed = st.Ino, time.Unix(st.Ctim.Unix())
	}
	return id
}

func readRoots(path string) (*x509.CertPool, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxCAFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxCAFile {
		return nil, fmt.Errorf("it has more than %d bytes", maxCAFile)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, errors.New("it holds no certificate in PEM")
	}
	return roots, nil
}
