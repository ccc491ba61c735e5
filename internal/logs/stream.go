package logs

import "bytes"

// Stream cuts what a container writes to one of its streams into records.
type Stream struct {
	w     *Writer
	tail  string // " stdout" or " stderr"
	carry []byte // begin of a line whose end has not come, at most MaxContent
}

// keepCarry is how large a carry buffer may be to be kept while it is empty.
const keepCarry = 1 << 10

// Write takes in p. It never fails and waits for nothing but the file system:
// what cannot be stored is counted in Stats.
func (s *Stream) Write(p []byte) {
	w := s.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin(len(p))
	defer w.end()
	for len(p) > 0 {
		room := MaxContent - len(s.carry)
		i := bytes.IndexByte(p, '\n')
		switch {
		case i >= 0 && i <= room: // the line ends here
			w.emit(s.tail, 'F', s.carry, p[:i])
			p = p[i+1:]
			s.forget()
		case len(p) > room: // too long for one record
			w.emit(s.tail, 'P', s.carry, p[:room])
			p = p[room:]
			s.forget()
		default: // wait for the rest
			s.carry = append(s.carry, p...)
			p = nil
		}
	}
}

// Flush writes the begin of a line whose end has not come: as a complete
// record at the end of the output (as containerd's CRI plugin does), as a
// partial one when more may follow.
func (s *Stream) Flush(end bool) {
	w := s.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(s.carry) == 0 {
		return
	}
	tag := byte('P')
	if end {
		tag = 'F'
	}
	w.begin(0)
	defer w.end()
	w.emit(s.tail, tag, s.carry, nil)
	s.forget()
}

func (s *Stream) forget() {
	if cap(s.carry) > keepCarry {
		s.carry = nil
	}
	s.carry = s.carry[:0]
}
