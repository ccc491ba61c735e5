package logs

import (
	"bytes"
	"sync"
)

// Stream cuts what a container writes to one of its streams into records.
type Stream struct {
	w     *Writer
	head  []byte  // how each record of the piece in hand begins, as a complete line
	carry []byte  // begin of a line whose end has not come, at most MaxContent
	small []byte  // what carry is made of while it is short, up to keepCarry
	lent  *[]byte // from carryPool, once carry is long
}

// keepCarry is how much of a line's begin a stream keeps a buffer of its own
// for. The begin of a longer line lies in a shared one until the line is out.
const keepCarry = 1 << 10

var carryPool = sync.Pool{New: func() any { b := make([]byte, 0, MaxContent); return &b }}

// Write takes in p. It never fails and waits for nothing but the file system:
// what cannot be stored is counted in Stats.
func (s *Stream) Write(p []byte) {
	w := s.w
	w.mu.Lock()
	defer w.mu.Unlock()
	s.begin(len(p))
	defer w.end()
	for len(p) > 0 {
		room := MaxContent - len(s.carry)
		i := bytes.IndexByte(p, '\n')
		switch {
		case i >= 0 && i <= room: // the line ends here
			w.emit(s.head, 'F', s.carry, p[:i])
			p = p[i+1:]
			s.forget()
		case len(p) > room: // too long for one record
			w.emit(s.head, 'P', s.carry, p[:room])
			p = p[room:]
			s.forget()
		default: // wait for the rest
			s.keep(p)
			p = nil
		}
	}
}

// Flush writes the begin of a line whose end has not come as a partial record,
// also at the end of the output, as containerd's CRI plugin does: whoever reads it
// adds no newline that the container never wrote.
func (s *Stream) Flush() {
	w := s.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(s.carry) == 0 {
		return
	}
	s.begin(0)
	defer w.end()
	w.emit(s.head, 'P', s.carry, nil)
	s.forget()
}

// begin gets writer and head ready for a piece of n raw bytes.
func (s *Stream) begin(n int) {
	s.w.begin(n)
	copy(s.head, s.w.clock.text[:])
}

// keep adds to the begin of a line.
func (s *Stream) keep(p []byte) {
	if s.lent == nil && len(s.carry)+len(p) > keepCarry {
		s.lent = carryPool.Get().(*[]byte)
		s.carry = append((*s.lent)[:0], s.carry...)
	}
	s.carry = append(s.carry, p...)
	if s.lent == nil {
		s.small = s.carry
	}
}

// forget empties carry; its content is out.
func (s *Stream) forget() {
	if s.lent != nil {
		carryPool.Put(s.lent)
		s.lent = nil
	}
	s.carry = s.small[:0]
}
