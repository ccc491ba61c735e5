package diag

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"plain text":              "plain text",
		"Grüße 世界 🙂":              "Grüße 世界 🙂",
		"\x1b[31mred\x1b[0m":      `\x1b[31mred\x1b[0m`,
		"\x1b]0;title\a":          `\x1b]0;title\a`,
		"safe\rEVIL":              `safe\rEVIL`,
		"\u009b31m":               `\u009b31m`,
		"\x9b31m":                 `\x9b31m`,
		"a\u202egpj.exe":          `a\u202egpj.exe`,
		"a\u2066b\u2069":          `a\u2066b\u2069`,
		"zero\u200bwidth":         `zero\u200bwidth`,
		"two\nlines\tand a tab":   `two\nlines\tand a tab`,
		"del\x7f":                 `del\x7f`,
		"\ufffd is a character":   "\ufffd is a character",
		"tag \U000e0041":          `tag \U000e0041`,
		"separators \u2028\u2029": `separators \u2028\u2029`,
	} {
		if got := Escape(in); got != want {
			t.Errorf("Escape(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestEscaperKeepsCharactersWhole(t *testing.T) {
	const in = "ä\u202e\n\t世\x1b[2J🙂\xf0\x9f"
	const want = "ä\\u202e\n\t世\\x1b[2J🙂\\xf0\\x9f"
	for cut := range len(in) {
		var out bytes.Buffer
		e := NewEscaper(&out)
		for _, part := range []string{in[:cut], in[cut:]} {
			if n, err := e.Write([]byte(part)); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
		}
		if err := e.Flush(); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("cut at %d: %q, want %q", cut, out.String(), want)
		}
	}
}

func TestEscapeJSONIsTheSameDocument(t *testing.T) {
	const evil = "\x1b[31m\u009b\u202e\u2066\x7f\U000e0041 世"
	doc, err := json.MarshalIndent(map[string]string{"a": evil}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	escaped := EscapeJSON(doc)
	if bad := invisible(string(escaped), "\n\t"); bad != "" {
		t.Errorf("%q is left in %q", bad, escaped)
	}
	var got map[string]string
	if err := json.Unmarshal(escaped, &got); err != nil || got["a"] != evil {
		t.Errorf("read back %q, %v, want %q", got["a"], err, evil)
	}
}

// invisible returns what a terminal could act on.
func invisible(s, except string) string {
	for i, r := range s {
		_, n := utf8.DecodeRuneInString(s[i:])
		if (r == utf8.RuneError && n == 1) || (!unicode.IsGraphic(r) && !strings.ContainsRune(except, r)) {
			return s[i : i+n]
		}
	}
	return ""
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "a", "\x1b[31m", "\u202e", "\xc3", "\xf0\x9f\x99", "\r\n", "\u009b", "世"} {
		f.Add(s, 1)
	}
	f.Fuzz(func(t *testing.T, s string, cut int) {
		if bad := invisible(Escape(s), ""); bad != "" {
			t.Errorf("Escape(%q) leaves %q", s, bad)
		}
		if invisible(s, "") == "" && Escape(s) != s {
			t.Errorf("Escape(%q) = %q changes what is safe", s, Escape(s))
		}
		var out bytes.Buffer
		e := NewEscaper(&out)
		cut = min(max(cut, 0), len(s))
		for _, part := range []string{s[:cut], s[cut:]} {
			if _, err := e.Write([]byte(part)); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.Flush(); err != nil {
			t.Fatal(err)
		}
		if bad := invisible(out.String(), "\n\t"); bad != "" {
			t.Errorf("a stream of %q leaves %q", s, bad)
		}
		doc, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back, plain string
		if json.Unmarshal(doc, &plain) != nil || json.Unmarshal(EscapeJSON(doc), &back) != nil || back != plain {
			t.Errorf("EscapeJSON changed %q to %q", plain, back)
		}
		if bad := invisible(string(EscapeJSON(doc)), ""); bad != "" {
			t.Errorf("EscapeJSON(%q) leaves %q", doc, bad)
		}
	})
}
