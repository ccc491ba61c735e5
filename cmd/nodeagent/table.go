package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"golang.org/x/text/width"

	"nodeagent/internal/diag"
)

// table is what a verb shows of a list: one line an item, the first line a
// heading. Nothing is cut off, and each cell is escaped, so that a line of the
// table is a line of the output whatever a pod wrote.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// gap is the space between two columns.
const gap = "   "

func (t *table) write(w io.Writer) error {
	lines := make([][]string, 0, len(t.rows)+1)
	lines = append(lines, t.head)
	for _, row := range t.rows {
		safe := make([]string, len(row))
		for i, cell := range row {
			safe[i] = diag.Escape(cell)
		}
		lines = append(lines, safe)
	}
	widths := make([]int, len(t.head))
	for _, l := range lines {
		for i, cell := range l {
			widths[i] = max(widths[i], columns(cell))
		}
	}
	paint := painter(w)
	var b strings.Builder
	for n, l := range lines {
		var line strings.Builder
		for i, cell := range l {
			if i > 0 {
				line.WriteString(gap)
			}
			line.WriteString(paint(n == 0, cell))
			line.WriteString(strings.Repeat(" ", widths[i]-columns(cell)))
		}
		b.WriteString(strings.TrimRight(line.String(), " "))
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// columns is how wide a terminal shows s.
func columns(s string) int {
	n := 0
	for _, r := range s {
		switch k := width.LookupRune(r).Kind(); {
		case unicode.In(r, unicode.Mn, unicode.Me):
		case k == width.EastAsianWide || k == width.EastAsianFullwidth:
			n += 2
		default:
			n++
		}
	}
	return n
}

// painter colours words that say how something is, on a terminal and where
// NO_COLOR does not forbid it. Colour never says what the word does not.
func painter(w io.Writer) func(head bool, cell string) string {
	if !terminal(w) || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return func(_ bool, cell string) string { return cell }
	}
	return func(head bool, cell string) string {
		code := ""
		switch {
		case head:
			code = "1"
		case good[cell]:
			code = "32"
		case bad(cell):
			code = "31"
		}
		if code == "" {
			return cell
		}
		return "\x1b[" + code + "m" + cell + "\x1b[0m"
	}
}

var good = map[string]bool{"Running": true, "Completed": true, "Succeeded": true, "same": true}

func bad(cell string) bool {
	for _, part := range []string{"BackOff", "Error", "Err", "Failed", "OOMKilled", "DIFFERS"} {
		if strings.Contains(cell, part) && !strings.Contains(cell, " ") {
			return true
		}
	}
	return false
}

// ago shows how long ago t was, in the two largest units, as kubectl does.
func ago(now time.Time, t *time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	return span(now.Sub(*t))
}

func span(d time.Duration) string {
	d = max(d, 0).Truncate(time.Second)
	day := 24 * time.Hour
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 10*time.Minute:
		return two(d, time.Minute, "m", time.Second, "s")
	case d < 3*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 8*time.Hour:
		return two(d, time.Hour, "h", time.Minute, "m")
	case d < 2*day:
		return fmt.Sprintf("%dh", int(d.Hours()))
	case d < 8*day:
		return two(d, day, "d", time.Hour, "h")
	}
	return fmt.Sprintf("%dd", int(d/day))
}

func two(d, large time.Duration, l string, small time.Duration, s string) string {
	if rest := d % large / small; rest > 0 {
		return fmt.Sprintf("%d%s%d%s", int(d/large), l, int(rest), s)
	}
	return fmt.Sprintf("%d%s", int(d/large), l)
}

// size shows bytes in binary units.
func size(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%dB", n)
	}
	f, i := float64(n)/1024, 0
	for f >= 1024 && i < len(units)-1 {
		f /= 1024
		i++
	}
	if f < 10 {
		return fmt.Sprintf("%.1f%ciB", f, units[i])
	}
	return fmt.Sprintf("%.0f%ciB", f, units[i])
}
