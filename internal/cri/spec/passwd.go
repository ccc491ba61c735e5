package spec

import (
	"fmt"
	"iter"
	"strconv"
	"strings"
)

// number reads a decimal uid or gid. is is false for what may be a name; err is
// set for what is a number, or meant as one, but out of range: that must never
// be looked up as a name.
func number(s string) (n uint32, is bool, err error) {
	digits := strings.TrimLeft(s, "+-")
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false, nil
	}
	v, perr := strconv.ParseUint(s, 10, 32) // refuses signs
	if perr != nil || v > maxID {
		return 0, true, fmt.Errorf("the number is not between 0 and %d", maxID)
	}
	return uint32(v), true, nil
}

// checkAccountName refuses what no sane account is named and what a number in
// disguise may look like: spaces, signs in front, other scripts' digits.
func checkAccountName(s string) error {
	ok := s != "" && len(s) <= 256 && s[0] != '-' && s[0] != '+'
	for i := range len(s) {
		c := s[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_.-$@+\\", c) >= 0)
	}
	if !ok {
		return refuse("%q is neither a number up to %d nor the name of an account", s, maxID)
	}
	return nil
}

// account is a line of /etc/passwd, its numbers unread.
type account struct{ name, uid, gid string }

// findAccount returns the first account that match accepts.
func findAccount(passwd []byte, match func(account) bool) (account, bool) {
	for line := range lines(passwd) {
		f := strings.SplitN(line, ":", 5)
		if len(f) < 4 || f[0] == "" {
			continue
		}
		if a := (account{name: f[0], uid: f[2], gid: f[3]}); match(a) {
			return a, true
		}
	}
	return account{}, false
}

// groupLine is a line of /etc/group, its number unread.
type groupLine struct{ name, gid, members string }

func groupLines(group []byte) iter.Seq[groupLine] {
	return func(yield func(groupLine) bool) {
		for line := range lines(group) {
			f := strings.SplitN(line, ":", 5)
			if len(f) < 3 || f[0] == "" {
				continue
			}
			g := groupLine{name: f[0], gid: f[2]}
			if len(f) > 3 {
				g.members = f[3]
			}
			if !yield(g) {
				return
			}
		}
	}
}

// lines yields the lines of b that are neither empty nor comments.
func lines(b []byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
				continue
			}
			if !yield(line) {
				return
			}
		}
	}
}
