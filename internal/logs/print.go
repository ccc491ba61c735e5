package logs

import (
	"errors"
	"io"
)

// timestampLayout is RFC 3339 with nine digits, as kubectl logs --timestamps
// shows it.
const timestampLayout = "2006-01-02T15:04:05.000000000Z07:00"

// errLimit ends a read whose byte limit is used up.
var errLimit = errors.New("byte limit reached")

// printer shows records: whole lines, to the stream that they came from. It
// gathers what goes to one stream, so that a record does not cost a write.
type printer struct {
	opts           ReadOptions
	stdout, stderr io.Writer
	left           int64
	buf            []byte
	to             Name
	inside         [2]bool // the stream's last record was partial
}

const printSize = 32 << 10

func (p *printer) line(line []byte) error {
	r, err := Parse(line)
	if err != nil {
		return nil //nolint:nilerr // a foreign line in the file is not shown
	}
	if (p.opts.Stream != "" && r.Stream != p.opts.Stream) || r.Time.Before(p.opts.Since) {
		return nil
	}
	if r.Stream != p.to || len(p.buf) >= printSize {
		if err := p.flush(); err != nil {
			return err
		}
		p.to = r.Stream
	}
	inside := &p.inside[0]
	if r.Stream == Stderr {
		inside = &p.inside[1]
	}
	if p.opts.Timestamps && !*inside {
		p.buf = append(r.Time.AppendFormat(p.buf, timestampLayout), ' ')
	}
	p.buf = append(p.buf, r.Content...)
	if !r.Partial {
		p.buf = append(p.buf, '\n')
	}
	*inside = r.Partial
	if p.opts.Limit > 0 && int64(len(p.buf)) >= p.left {
		return p.flush()
	}
	return nil
}

func (p *printer) flush() error {
	b := p.buf
	p.buf = p.buf[:0]
	if p.opts.Limit > 0 && int64(len(b)) > p.left {
		b = b[:p.left]
	}
	if len(b) > 0 {
		w := p.stdout
		if p.to == Stderr {
			w = p.stderr
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	if p.opts.Limit > 0 {
		if p.left -= int64(len(b)); p.left <= 0 {
			return errLimit
		}
	}
	return nil
}
