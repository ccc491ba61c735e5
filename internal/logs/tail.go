package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// begin finds where to start: at the oldest file, or Tail lines from the end.
func (r *reader) begin() error {
	names := r.names()
	left := r.opts.Tail
	var file *os.File
	var inode uint64
	var offset int64
	for _, n := range slices.Backward(names) {
		f, ino, err := r.open(n)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			if file != nil {
				_ = file.Close()
			}
			return err
		}
		if file != nil {
			_ = file.Close()
		}
		file, inode, offset = f, ino, 0
		if left < 0 {
			if info, err := f.Stat(); err == nil && info.ModTime().Before(r.opts.Since) {
				break // this one and all before it are too old
			}
			continue
		}
		if offset, left, err = r.backward(f, left); err != nil {
			_ = file.Close()
			return err
		}
		if offset > 0 || r.opts.Tail == 0 {
			break
		}
	}
	if file == nil {
		return fmt.Errorf("open log file %s: %w", r.name, os.ErrNotExist)
	}
	return r.use(file, inode, offset)
}

const tailBlock = 64 << 10

// backward walks over the records of f from its end until it meets the end of a
// line that is one too many; want is zero where the begin of the first line to
// show may lie in an older file. It returns the offset of the first record to show, zero if all are
// to be shown, and how many lines are still wanted.
func (r *reader) backward(f *os.File, want int) (offset int64, left int, err error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, 0, fmt.Errorf("seek in log: %w", err)
	}
	if r.opts.Tail == 0 {
		return end, 0, nil
	}
	block := make([]byte, tailBlock)
	tail := make([]byte, 0, 2*tailBlock) // block and the begin of what follows it
	pos := end
	for pos > 0 {
		n := min(int64(tailBlock), pos)
		pos -= n
		if _, err := f.ReadAt(block[:n], pos); err != nil {
			return 0, 0, fmt.Errorf("read log: %w", err)
		}
		tail = append(append(make([]byte, 0, 2*tailBlock), block[:n]...), tail...)
		for {
			i := bytes.LastIndexByte(tail[:max(0, len(tail)-1)], '\n')
			if i < 0 {
				break
			}
			if r.endsLine(tail[i+1:]) {
				if want--; want < 0 {
					return pos + int64(len(tail)), 0, nil // where the record after it begins
				}
			}
			tail = tail[:i+1]
		}
		if len(tail) > RecordMax {
			tail = tail[:0] // no record is that long; its end is not one either
		}
	}
	if len(tail) > 0 && r.endsLine(tail) {
		if want--; want < 0 {
			return int64(len(tail)), 0, nil
		}
	}
	return 0, want, nil
}

// endsLine tells whether a record counts as a line of what is asked for: the last
// part of one, or what there is of a stream's last line when its end has not come.
// It is asked once about each record, from the last one on.
func (r *reader) endsLine(line []byte) bool {
	rec, err := Parse(line)
	if err != nil || (r.opts.Stream != "" && rec.Stream != r.opts.Stream) {
		return false
	}
	later := &r.later[0]
	if rec.Stream == Stderr {
		later = &r.later[1]
	}
	last := !*later
	*later = true
	return last || !rec.Partial
}
