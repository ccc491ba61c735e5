package pod

import (
	"strings"
	"testing"
)

func TestFileVariable(t *testing.T) {
	for _, c := range []struct{ text, want, err string }{
		{"K='v'", "v", ""},
		{"\n  # c\n\tK='v' # behind\n", "v", ""},
		{"A='x'\r\nK='v'\r\n", "v", ""},
		{"A='K=\nK=1\n'\nK='two\nlines'\n", "two\nlines", ""},
		{"K='a=\"b\" $(X)'", "a=\"b\" $(X)", ""},
		{"K='1'\nK='2'\nbroken", "1", ""}, // the first; what follows is not looked at
		{"A='x'", "", ""},
		{"K=''", "", ""},
		{"K= 'v'\n", "", ""},
		{"A= v\nK='v'", "v", ""},
		{"", "", ""},
		{"K", "", "at line 1: missing '='"},
		{"\n='v'", "", "at line 2: empty variable name"},
		{"K ='v'", "", "at line 1: whitespace before '='"},
		{"K=v", "", "at line 1: value must be enclosed"},
		{"K='v' w", "", "at line 1: unexpected content"},
		{"A='x'\nK='v\nw", "", "starting at line 2: unclosed"},
	} {
		got, found, err := FileVariable(c.text, "K")
		if got != c.want || found != (c.want != "") || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q gives %q, %t, %v; want %q, %q", c.text, got, found, err, c.want, c.err)
		}
	}
}

// FuzzFileVariable: the file is a container's: nothing in it ends the daemon, a
// value is a part of the file, and an error tells no value.
func FuzzFileVariable(f *testing.F) {
	for _, s := range []string{"K='v'", "K='a\nb' # c\n", "A='\nK='", "=\nK", "K=''x", "\r\n\t#\nK= 'x'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, found, err := FileVariable(text, "K")
		if found != (got != "") || err != nil && (found || len(err.Error()) > 120) {
			t.Fatalf("got %q, %t, %v", got, found, err)
		}
		if plain := strings.ReplaceAll(text, "\r\n", "\n"); found && !strings.Contains(plain, got) && !strings.Contains(text, got) && !strings.Contains(got, "\r") {
			t.Fatalf("%q is no part of %q", got, text)
		}
	})
}
