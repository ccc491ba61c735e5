package shimapi

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// LogScheme is the scheme of a task's Stdout and Stderr when our shim is to
// write its log.
const LogScheme = "nodeagent"

// StdinURI and StdinOnceURI ask the shim for a stdin that an attached client
// can write to; with StdinOnceURI it is closed for good when the first such
// client leaves (stdinOnce of a pod).
const (
	StdinURI     = "nodeagent-stdin://"
	StdinOnceURI = "nodeagent-stdin://once"
)

// LogURI says where and how the shim writes the log of one container.
type LogURI struct {
	Path     string // absolute path of the current log file, …/<n>.log
	MaxSize  int64  // bytes a file may reach before it is rotated; 0: never
	MaxFiles int    // files kept, the current one included; at least 1 if MaxSize > 0
	Sandbox  string // sandbox id, names the control socket
	RunDir   string // daemon's run directory; empty: DefaultRunDir
}

// String builds the URI; ParseLogURI is its inverse.
func (u LogURI) String() string {
	q := url.Values{}
	q.Set("max-size", strconv.FormatInt(u.MaxSize, 10))
	q.Set("max-files", strconv.Itoa(u.MaxFiles))
	q.Set("sandbox", u.Sandbox)
	if u.RunDir != "" {
		q.Set("run", u.RunDir)
	}
	return (&url.URL{Scheme: LogScheme, Path: u.Path, RawQuery: q.Encode(), OmitHost: false}).String()
}

// IsLogURI tells whether a task's Stdout asks for our log writer.
func IsLogURI(s string) bool { return strings.HasPrefix(s, LogScheme+"://") }

var errBadLogURI = errors.New("want nodeagent://<absolute path>?max-size=&max-files=&sandbox=&run=")

// ParseLogURI reads a URI as String builds it; unknown keys are refused, since
// an ignored limit would be worse than a failed start.
func ParseLogURI(s string) (LogURI, error) {
	parsed, err := url.Parse(s)
	if err != nil {
		return LogURI{}, fmt.Errorf("parse log uri: %w", err)
	}
	if parsed.Scheme != LogScheme || parsed.Host != "" || parsed.User != nil || parsed.Fragment != "" {
		return LogURI{}, fmt.Errorf("parse log uri %q: %w", s, errBadLogURI)
	}
	query, err := url.ParseQuery(parsed.RawQuery)
	if err != nil {
		return LogURI{}, fmt.Errorf("parse log uri: %w", err)
	}
	u := LogURI{Path: parsed.Path, RunDir: DefaultRunDir}
	for key, values := range query {
		if err := u.set(key, values[len(values)-1]); err != nil {
			return LogURI{}, fmt.Errorf("parse log uri key %q: %w", key, err)
		}
	}
	return u, u.check()
}

func (u *LogURI) set(key, value string) (err error) {
	switch key {
	case "max-size":
		u.MaxSize, err = strconv.ParseInt(value, 10, 64)
	case "max-files":
		u.MaxFiles, err = strconv.Atoi(value)
	case "sandbox":
		u.Sandbox = value
	case "run":
		u.RunDir = value
	default:
		err = errBadLogURI
	}
	return err
}

func (u *LogURI) check() error {
	switch {
	case !cleanAbs(u.Path) || u.Path == "/":
		return fmt.Errorf("log path %q is not absolute and clean", u.Path)
	case !cleanAbs(u.RunDir):
		return fmt.Errorf("run directory %q is not absolute and clean", u.RunDir)
	case u.MaxSize < 0 || u.MaxFiles < 0:
		return errors.New("log limits must not be negative")
	case u.MaxSize > 0 && u.MaxFiles < 1:
		return errors.New("a log with a size limit needs at least one file")
	}
	return CheckID(u.Sandbox)
}

func cleanAbs(p string) bool {
	return path.IsAbs(p) && path.Clean(p) == p && !strings.ContainsRune(p, 0)
}
