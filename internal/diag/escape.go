package diag

import (
	"fmt"
	"io"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// Escape makes text that a pod can influence safe to show on a terminal: what
// is not a visible character or a space becomes visible as \x1b, \u202e and the
// like. So no escape sequence, carriage return, C1 control or change of writing
// direction reaches the terminal (the class of CVE-2021-25743). A newline and a
// tab are escaped too: a cell of a table is one line.
func Escape(s string) string {
	if safe(s) {
		return s
	}
	b := make([]byte, 0, len(s)+16)
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		b = appendRune(b, r, s[i:i+n])
		i += n
	}
	return string(b)
}

func safe(s string) bool {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				return false
			}
		}
		if !unicode.IsGraphic(r) {
			return false
		}
	}
	return true
}

// appendRune appends one rune, or the byte that is none.
func appendRune[T string | []byte](b []byte, r rune, raw T) []byte {
	switch {
	case r == utf8.RuneError && len(raw) == 1:
		return fmt.Appendf(b, `\x%02x`, raw[0])
	case unicode.IsGraphic(r):
		return append(b, raw...)
	}
	quoted := strconv.QuoteRune(r) // 'x' with Go's escapes
	return append(b, quoted[1:len(quoted)-1]...)
}

// Escaper escapes a stream, such as a log, as Escape does, but keeps newlines
// and tabs. A character may be cut by two writes; Flush shows what is left.
type Escaper struct {
	w    io.Writer
	tail []byte // begin of a character, at most 3 bytes
	buf  []byte
}

// NewEscaper returns an Escaper that writes to w.
func NewEscaper(w io.Writer) *Escaper { return &Escaper{w: w} }

// Write escapes p. It returns len(p) unless w fails.
func (e *Escaper) Write(p []byte) (int, error) {
	in := p
	if len(e.tail) > 0 {
		in = append(e.tail, p...)
		e.tail = nil
	}
	e.buf = e.buf[:0]
	for len(in) > 0 {
		if !utf8.FullRune(in) {
			e.tail = append([]byte(nil), in...)
			break
		}
		r, n := utf8.DecodeRune(in)
		if r == '\n' || r == '\t' {
			e.buf = append(e.buf, byte(r))
		} else {
			e.buf = appendRune(e.buf, r, in[:n])
		}
		in = in[n:]
	}
	if _, err := e.w.Write(e.buf); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush writes the bytes of a character that never became complete.
func (e *Escaper) Flush() error {
	text := e.buf[:0]
	for _, c := range e.tail {
		text = fmt.Appendf(text, `\x%02x`, c)
	}
	e.tail = nil
	_, err := e.w.Write(text)
	return err
}

// EscapeJSON makes a JSON document safe to show: characters that are not visible
// become \u escapes inside its strings, which is the same document.
func EscapeJSON(doc []byte) []byte {
	b := make([]byte, 0, len(doc))
	for len(doc) > 0 {
		r, n := utf8.DecodeRune(doc)
		switch {
		case r == '\n' || r == '\t' || r == '\r' || unicode.IsGraphic(r):
			b = append(b, doc[:n]...)
		case r > 0xffff:
			r -= 0x10000
			b = fmt.Appendf(b, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
		doc = doc[n:]
	}
	return b
}
