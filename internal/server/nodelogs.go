package server

import (
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxListed is how many names of a directory are listed.
	maxListed = 10000
	// maxLinks is how many links are followed, one after the other.
	maxLinks = 8
)

// errNoLog is said of all that is there but is nothing to read: what it is instead is
// not told.
var errNoLog = errors.New("this is neither a file nor a directory of logs")

// nodeLogs serves the files of the node's log directory, which pods may be able to
// write to: nothing outside of it is shown, whatever links say, and nothing is read
// but files, so that no pipe holds a request up.
func (a *NodeAPI) nodeLogs(w http.ResponseWriter, r *http.Request, args []string) {
	if a.cfg.LogDir == "" {
		http.Error(w, "logs endpoint is disabled.", http.StatusMethodNotAllowed)
		return
	}
	name := path.Join(args...)
	if a.cfg.Journal != nil {
		var ok bool
		if name, ok = a.queried(w, r, name); !ok {
			return
		}
	}
	f, info, err := openLog(a.cfg.LogDir, name)
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENAMETOOLONG):
		http.Error(w, "404 page not found", http.StatusNotFound)
		return
	case errors.Is(err, errNoLog), errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ELOOP), leadsOut(err):
		http.Error(w, "403 Forbidden", http.StatusForbidden)
		return
	default:
		a.cfg.Logger.Warn("cannot read a log of the node", "path", r.URL.Path, "err", err)
		http.Error(w, "the log cannot be read: the node's own log says why", http.StatusInternalServerError)
		return
	}
	defer f.Close()
	out := &logWriter{w: w, control: http.NewResponseController(w), each: a.limits.written}
	if info.IsDir() {
		a.listLogs(out, f, r.URL.Path)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8") // never what its name or its bytes say
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(logAnswer{w, out}, r, "", info.ModTime(), f)
	_ = out.control.SetWriteDeadline(time.Now().Add(out.each)) // what is left in buffers
}

// logAnswer is an answer each piece of which has its time.
type logAnswer struct {
	http.ResponseWriter
	pieces *logWriter
}

func (a logAnswer) Write(p []byte) (int, error) {
	a.pieces.begun = true // its head is that of ServeContent
	return a.pieces.Write(p)
}

// listLogs writes the names in a directory, as links that lead there with or without
// a slash at the end of the directory's own path.
func (a *NodeAPI) listLogs(w *logWriter, dir *os.File, asked string) {
	entries, err := dir.ReadDir(maxListed)
	if err != nil && !errors.Is(err, io.EOF) {
		http.Error(w.w, "the directory cannot be read: the node's own log says why", http.StatusInternalServerError)
		a.cfg.Logger.Warn("cannot list logs of the node", "path", asked, "err", err)
		return
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	under := ""
	if !strings.HasSuffix(asked, "/") {
		under = path.Base(asked) + "/"
	}
	var page strings.Builder
	page.WriteString("<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n")
	for _, e := range entries {
		name := e.Name()
		if e.IsDir() {
			name += "/"
		}
		// "./": a name with a colon is no address.
		to := url.URL{Path: "./" + under + name}
		fmt.Fprintf(&page, "<a href=\"%s\">%s</a>\n", html.EscapeString(to.String()), html.EscapeString(name))
	}
	page.WriteString("</pre>\n")
	w.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.w.Header().Set("X-Content-Type-Options", "nosniff")
	w.begun = true
	_, _ = w.Write([]byte(page.String())) // who asked is gone
}

// leadsOut tells whether it was the library that refused a path, and not the kernel:
// the path leads out of the directory. It has no name for that.
func leadsOut(err error) bool {
	var kernel unix.Errno
	return !errors.As(err, &kernel)
}

// openLog opens a file or directory below dir. Links are followed as long as they stay
// there; those of /var/log/containers name the whole path.
func openLog(dir, name string) (*os.File, fs.FileInfo, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	if name == "" {
		name = "."
	}
	if name, err = follow(root, dir, name); err != nil {
		return nil, nil, err
	}
	// A pipe that came meanwhile is opened without waiting for who writes to it.
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.IsDir() && !info.Mode().IsRegular() {
		err = errNoLog
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// follow returns where a name leads that may be a link, by words only: whether it is
// in the directory is judged when it is opened. What is neither file nor directory is
// not opened at all.
func follow(root *os.Root, dir, name string) (string, error) {
	for range maxLinks {
		info, err := root.Lstat(name)
		if err != nil {
			return "", err
		}
		if info.IsDir() || info.Mode().IsRegular() {
			return name, nil
		}
		if info.Mode().Type() != fs.ModeSymlink {
			return "", errNoLog
		}
		to, err := root.Readlink(name)
		if err != nil {
			return "", err
		}
		if filepath.IsAbs(to) {
			to, err = filepath.Rel(dir, to)
		} else {
			to = filepath.Join(filepath.Dir(name), to)
		}
		if name = to; err != nil {
			return "", errNoLog
		}
	}
	return "", errNoLog
}
