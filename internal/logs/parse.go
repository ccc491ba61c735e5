package logs

import (
	"bytes"
	"errors"
	"time"
)

// Record is one line of a log file.
type Record struct {
	Time    time.Time
	Stream  Name
	Partial bool   // the container's line goes on in the stream's next record
	Content []byte // without the newline; aliases what was parsed
}

var errRecord = errors.New("parse log record: want <RFC3339Nano> <stdout|stderr> <P|F> <content>")

// Parse reads a record as the Writer, containerd's CRI plugin or CRI-O write
// it, with or without its newline. The content may be anything, also empty;
// tags after the first, divided by ':', are ignored as kubelet does.
func Parse(line []byte) (Record, error) {
	line = bytes.TrimSuffix(line, newline)
	stampText, rest, ok := bytes.Cut(line, space)
	if !ok || len(stampText) > len("2006-01-02T15:04:05.000000000+00:00") {
		return Record{}, errRecord
	}
	at, err := time.Parse(time.RFC3339Nano, string(stampText))
	if err != nil {
		return Record{}, errRecord
	}
	stream, rest, ok := bytes.Cut(rest, space)
	if !ok {
		return Record{}, errRecord
	}
	r := Record{Time: at}
	switch {
	case bytes.Equal(stream, []byte(Stdout)):
		r.Stream = Stdout
	case bytes.Equal(stream, []byte(Stderr)):
		r.Stream = Stderr
	default:
		return Record{}, errRecord
	}
	tags, content, _ := bytes.Cut(rest, space)
	tag, _, _ := bytes.Cut(tags, []byte{':'})
	switch {
	case bytes.Equal(tag, []byte{'P'}):
		r.Partial = true
	case bytes.Equal(tag, []byte{'F'}):
	default:
		return Record{}, errRecord
	}
	r.Content = content
	return r, nil
}

var space = []byte{' '}
