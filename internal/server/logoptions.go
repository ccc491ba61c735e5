package server

import (
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"nodeagent/internal/logs"
)

// queryError is a query that cannot be read (400), or that asks for what there is
// not (422).
type queryError struct {
	text      string
	forbidden bool
}

func (e *queryError) Error() string { return e.text }

// logQuery is what somebody wants to see of a log.
type logQuery struct {
	read     logs.ReadOptions
	previous bool
}

// parseLogQuery reads v1.PodLogOptions as kubelet does, with "tail" as an old name
// of tailLines, and judges them by the API server's rules.
func parseLogQuery(q url.Values, now time.Time) (logQuery, error) {
	o := logQuery{
		read:     logs.ReadOptions{Follow: flag(q, "follow"), Timestamps: flag(q, "timestamps"), Tail: -1},
		previous: flag(q, "previous"),
	}
	lines := "tailLines"
	if old := q.Get("tail"); old == "all" {
		lines = "" // all lines: what tailLines says does not count
	} else if old != "" {
		lines = "tail"
	}
	tail, hasTail, err := number(q, lines, 0)
	if err != nil {
		return o, err
	}
	if hasTail {
		o.read.Tail = int(min(tail, math.MaxInt32))
	}
	if o.read.Limit, _, err = number(q, "limitBytes", 1); err != nil {
		return o, err
	}
	if o.read.Since, err = since(q, now); err != nil {
		return o, err
	}
	switch stream := q.Get("stream"); stream {
	case "", "All":
	case "Stdout":
		o.read.Stream = logs.Stdout
	case "Stderr":
		o.read.Stream = logs.Stderr
	default:
		return o, &queryError{text: fmt.Sprintf("stream: %q is none of All, Stdout, Stderr", stream), forbidden: true}
	}
	if o.read.Stream != "" && hasTail {
		return o, &queryError{text: "tailLines cannot be asked of one stream", forbidden: true}
	}
	return o, nil
}

// flag is false only where it is absent or says so (apimachinery's conversion).
func flag(q url.Values, name string) bool {
	if !q.Has(name) {
		return false
	}
	switch v := q.Get(name); {
	case v == "0", strings.EqualFold(v, "false"):
		return false
	}
	return true
}

// number reads a number that is least or more; not ok: it is absent.
func number(q url.Values, name string, least int64) (n int64, ok bool, err error) {
	text := q.Get(name)
	if text == "" {
		return 0, false, nil
	}
	n, err = strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, false, &queryError{text: fmt.Sprintf("%s: %q is not a number", name, text)}
	}
	if n < least {
		return 0, false, &queryError{text: fmt.Sprintf("%s: %d is less than %d", name, n, least), forbidden: true}
	}
	return n, true, nil
}

func since(q url.Values, now time.Time) (time.Time, error) {
	seconds, hasSeconds, err := number(q, "sinceSeconds", 1)
	if err != nil {
		return time.Time{}, err
	}
	text := q.Get("sinceTime")
	switch {
	case hasSeconds && text != "":
		return time.Time{}, &queryError{text: "only one of sinceTime and sinceSeconds can be asked", forbidden: true}
	case hasSeconds && seconds <= int64(math.MaxInt64/time.Second):
		return now.Add(-time.Duration(seconds) * time.Second), nil
	case text == "" || text == "null":
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, &queryError{text: fmt.Sprintf("sinceTime: %q is not a time such as %s", text, now.UTC().Format(time.RFC3339))}
	}
	return at, nil
}
