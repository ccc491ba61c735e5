package probe

import (
	"bytes"
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
)

// FuzzAnswer: whatever a container answers is judged, with bounded memory, and
// never by its body.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
		"HTTP/1.0 999 \r\nContent-Length: -1\r\n\r\n",
		strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 20),
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", maxHeader+maxText),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := newReader()
		a, err := in.answer(bytes.NewReader(b))
		if err != nil {
			return
		}
		if a.code < 101 || len(a.body) > maxText {
			t.Errorf("took a code of %d with %d bytes of body", a.code, len(a.body))
		}
		if out := a.outcome(); out.Result == Failure && strings.Contains(out.Text, "\n") {
			t.Errorf("a failure tells the body: %q", out.Text)
		}
	})
}

// FuzzRedirect: no Location leads to another host.
func FuzzRedirect(f *testing.F) {
	for _, s := range []string{"/x", "//other/x", "http://10.0.0.7:99/", "http://10.0.0.7@other/", "https:other", "http:///x", "\\\\other", "?", "?0 0", "#", "http://10.0.0.7:80%00/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, location string) {
		from := &request{url: &url.URL{Scheme: "http", Host: "10.0.0.7:80", Path: "/a"}}
		next, err := from.follow(answer{code: 302, location: location}, &corev1.HTTPGetAction{}, "1.36")
		if err != nil || next == nil || next.url.Hostname() != from.url.Hostname() {
			return // not followed
		}
		if next.encode() != nil || next.url.Scheme != "http" {
			return
		}
		if host, _, ok := strings.Cut(next.address, ":"); !ok || host != "10.0.0.7" {
			t.Errorf("%q leads to %q", location, next.address)
		}
		line, _, _ := bytes.Cut(next.bytes, []byte("\r\n"))
		if fields := strings.Fields(string(line)); len(fields) != 3 || bytes.ContainsAny(line, "\n\x00") {
			t.Errorf("%q makes the request line %q", location, line)
		}
	})
}

// FuzzPrintable: what a command writes becomes a short line of printable text.
func FuzzPrintable(f *testing.F) {
	for _, s := range []string{"", "ok", "\x1b]0;x\a", "\xed\xa0\x80", "\u2028\u202e", strings.Repeat("é", 2000)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var h head
		for i := 0; i < len(text); i += 7 {
			_, _ = h.Write([]byte(text[i:min(i+7, len(text))]))
		}
		got := Printable(h.text())
		if len(got) > maxMessage || !utf8.ValidString(got) || strings.IndexFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
			t.Errorf("Printable made %q", got)
		}
	})
}

// FuzzRequest: a hostile spec makes one request with the headers that it names
// and no other.
func FuzzRequest(f *testing.F) {
	f.Add("/a", "X-A", "1")
	f.Add("/a HTTP/1.1\r\nX: y", "Host", "a\r\nb: c")
	f.Fuzz(func(t *testing.T, path, name, value string) {
		target := targetAt(t, "http://10.0.0.7:80", path, func(g *corev1.HTTPGetAction) {
			g.HTTPHeaders = []corev1.HTTPHeader{{Name: name, Value: value}}
		})
		r, err := NewHTTP("1.36").request(target)
		if err != nil {
			return
		}
		head, rest, ok := bytes.Cut(r.bytes, []byte("\r\n\r\n"))
		if lines := bytes.Count(head, []byte("\n")); !ok || len(rest) > 0 || lines > 5 {
			t.Errorf("path %q, header %q: %q makes %q", path, name, value, r.bytes)
		}
	})
}
