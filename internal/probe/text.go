package probe

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxMessage is how long a message about a probe may be: that of an event.
const maxMessage = 1024

// Printable returns what a container said in at most 1024 bytes, with everything
// escaped that could act on a terminal or forge a line of a log.
func Printable(text string) string {
	text = strings.TrimRight(text, "\r\n")
	if len(text) <= maxMessage && strings.IndexFunc(text, unprintable) < 0 {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		piece := text[:size]
		if r == utf8.RuneError && size <= 1 || unprintable(r) {
			q := strconv.Quote(piece)
			piece = q[1 : len(q)-1]
		}
		if b.Len()+len(piece) > maxMessage {
			break
		}
		b.WriteString(piece)
		text = text[size:]
	}
	return b.String()
}

func unprintable(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
