package logs

import "time"

const (
	stampLayout = "2006-01-02T15:04:05.000000000Z"
	stampLen    = len(stampLayout)
)

// stamp holds a formatted time; only the nanoseconds change within a second.
// Nine digits and UTC: every parser of RFC3339Nano takes them, and the width
// never changes.
type stamp struct {
	second int64
	text   [stampLen]byte
}

func (s *stamp) set(t time.Time) {
	if sec := t.Unix(); sec != s.second || s.text[0] == 0 {
		s.second = sec
		t.UTC().AppendFormat(s.text[:0], stampLayout)
		return
	}
	n := t.Nanosecond()
	for i := stampLen - 2; i > stampLen-11; i-- {
		s.text[i] = byte('0' + n%10)
		n /= 10
	}
}
