package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Journal is the node's journal.
type Journal interface {
	// Has returns those of the names that are units of which there is something.
	Has(ctx context.Context, names []string) ([]string, error)
	// Read writes what there is.
	Read(ctx context.Context, w io.Writer, q JournalQuery) error
}

// JournalQuery is what somebody wants to read of it.
type JournalQuery struct {
	Units        []string
	Since, Until time.Time // zero: no bound
	Lines        *int      // the last so many
	Pattern      string    // a regular expression
	Boot         *int      // 0 is this one, -1 the one before
}

// What of a query kubelet takes, too.
const (
	maxUnits    = 4
	maxUnitName = 256
	maxTail     = 100000
	maxPattern  = 1 << 10 // kubelet: none
)

// queryLimit is how long the journal is read, as with kubelet.
const queryLimit = 30 * time.Second

// nodeLogQuery is what /logs/ is asked with, beside a path.
type nodeLogQuery struct {
	services []string
	files    []string
	JournalQuery
	narrowed bool // by anything but what is queried
}

// parseNodeLogQuery reads the options that kubelet knows; others say nothing. What cannot be
// read is a bad request, what may not be is refused by check.
func parseNodeLogQuery(values url.Values) (q nodeLogQuery, asked bool, err error) {
	for _, one := range values["query"] {
		switch {
		case strings.ContainsAny(one, `/\`):
			q.files = append(q.files, strings.ReplaceAll(one, `\`, "/"))
		case strings.TrimSpace(one) != "":
			q.services = append(q.services, one)
		}
	}
	if values.Has("query") && len(q.files)+len(q.services) == 0 {
		return q, true, errors.New("query: Invalid value: may not be empty")
	}
	for name, to := range map[string]*time.Time{"sinceTime": &q.Since, "untilTime": &q.Until} {
		if text := values.Get(name); text != "" {
			q.narrowed = true
			if *to, err = time.Parse(time.RFC3339, text); err != nil {
				return q, true, fmt.Errorf("%s: Invalid value: %q: invalid time format", name, text)
			}
		}
	}
	for name, to := range map[string]**int{"boot": &q.Boot, "tailLines": &q.Lines} {
		if text := values.Get(name); text != "" {
			q.narrowed = true
			n, err := strconv.Atoi(text)
			if err != nil {
				return q, true, fmt.Errorf("%s: Invalid value: %q: it is no number", name, text)
			}
			*to = &n
		}
	}
	q.Pattern = values.Get("pattern")
	q.narrowed = q.narrowed || q.Pattern != ""
	return q, q.narrowed || values.Has("query"), nil
}

// check refuses what kubelet refuses, in its words where it has some.
func (q *nodeLogQuery) check() error {
	switch {
	case len(q.files)+len(q.services) == 0:
		return errors.New("query: Required value: cannot be empty with options")
	case len(q.files) > 0 && len(q.services) > 0:
		return errors.New("query: Invalid value: cannot specify a file and service")
	case len(q.files) > 1:
		return errors.New("query: Invalid value: cannot specify more than one file")
	case len(q.files) == 1 && q.narrowed:
		return errors.New("query: Invalid value: cannot specify file with options")
	case len(q.services) > maxUnits:
		return fmt.Errorf("query: Too many: %d: must have at most %d items", len(q.services), maxUnits)
	case !q.Since.IsZero() && !q.Until.IsZero() && q.Since.After(q.Until):
		return errors.New("untilTime: Invalid value: must be after `sinceTime`")
	case q.Boot != nil && *q.Boot > 0:
		return errors.New("boot: Invalid value: must be less than 1")
	case q.Lines != nil && (*q.Lines < 0 || *q.Lines > maxTail):
		return fmt.Errorf("tailLines: Invalid value: must be between 0 and %d, inclusive", maxTail)
	case len(q.Pattern) > maxPattern, strings.ContainsRune(q.Pattern, 0):
		return fmt.Errorf("pattern: Invalid value: it has at most %d bytes, none of which is 0", maxPattern)
	}
	if _, err := syntax.Parse(q.Pattern, syntax.Perl); err != nil {
		return fmt.Errorf("pattern: Invalid value: %w", err)
	}
	for _, name := range q.services {
		if len(name) > maxUnitName || strings.ContainsFunc(name, notOfUnits) {
			return errors.New("query: Invalid value: a service has at most 256 letters, digits and -_.:@")
		}
	}
	return nil
}

// notOfUnits tells of what no name of a unit has that anybody asks for: patterns and what
// programs take for something else are not among it.
func notOfUnits(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.:@", r)
}

// queried answers what is asked with a query. It returns the path to show where it has
// not answered.
func (a *NodeAPI) queried(w http.ResponseWriter, r *http.Request, name string) (string, bool) {
	q, asked, err := parseNodeLogQuery(r.URL.Query())
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
		return "", false
	case !asked:
		return name, true
	case name != "":
		http.Error(w, "path not allowed in query mode", http.StatusNotAcceptable)
		return "", false
	}
	if err := q.check(); err != nil {
		http.Error(w, err.Error(), http.StatusNotAcceptable)
		return "", false
	}
	if len(q.files) == 1 {
		return strings.TrimPrefix(path.Clean("/"+q.files[0]), "/"), true
	}
	a.serviceLogs(w, r, &q)
	return "", false
}

// serviceLogs writes what the journal has of services, and after that the files of those
// of which it has nothing.
func (a *NodeAPI) serviceLogs(w http.ResponseWriter, r *http.Request, q *nodeLogQuery) {
	ctx, cancel := context.WithTimeout(r.Context(), queryLimit)
	defer cancel()
	units, err := a.cfg.Journal.Has(ctx, q.services)
	if err != nil {
		a.journalFailed(w, nil, err)
		return
	}
	out := &logWriter{w: w, control: http.NewResponseController(w), each: a.limits.written}
	if q.Units = units; len(units) > 0 {
		if err := a.cfg.Journal.Read(ctx, out, q.JournalQuery); err != nil {
			a.journalFailed(w, out, err)
			return
		}
	}
	var files []string
	for _, name := range q.services {
		if !slices.Contains(units, name) {
			files = append(files, name)
		}
	}
	switch {
	case len(files) == 0:
	case q.narrowed:
		fmt.Fprintf(out, "\noptions present and query resolved to log files for %v\ntry without specifying options\n", files)
	default:
		for _, name := range files {
			a.serviceFile(out, name)
		}
	}
	_ = out.control.SetWriteDeadline(time.Now().Add(out.each)) // what is left in buffers
}

// journalFailed says why there is no log, or breaks off one of which a part was shown.
func (a *NodeAPI) journalFailed(w http.ResponseWriter, out *logWriter, err error) {
	if out != nil && out.begun {
		a.cfg.Logger.Debug("a log of the journal was broken off", "err", err)
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Retry-After", "1")
	http.Error(w, err.Error(), http.StatusServiceUnavailable)
}

// serviceFile writes the log file of a service, by the names that kubelet tries.
func (a *NodeAPI) serviceFile(out *logWriter, name string) {
	for _, file := range []string{name, name + ".log", name + "/" + name + ".log"} {
		f, info, err := openLog(a.cfg.LogDir, file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			break // why is not the client's
		}
		if info.IsDir() {
			f.Close()
			continue
		}
		// As much as there was: one that grows would have no end.
		_, err = io.Copy(out, io.LimitReader(f, info.Size()))
		f.Close()
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		return
	}
	fmt.Fprintf(out, "\nlog not found for %s\n", name)
}
