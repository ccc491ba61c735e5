package pod

import "strings"

// Expand replaces $(NAME) by the variable of that name, once; $$ stands for one
// $, and what names no variable stays as it is (Kubernetes' expansion syntax).
func Expand(text string, known map[string]string) string {
	expanded, _ := ExpandAll(text, known)
	return expanded
}

// ExpandAll is Expand, and names the variables that are not known or empty.
func ExpandAll(text string, known map[string]string) (expanded string, missing []string) {
	if !strings.Contains(text, "$") {
		return text, nil
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(text, '$')
		if i < 0 || i == len(text)-1 {
			return b.String() + text, missing
		}
		b.WriteString(text[:i])
		rest := text[i+1:]
		switch rest[0] {
		case '$':
			b.WriteByte('$')
			text = rest[1:]
		case '(':
			name, after, closed := strings.Cut(rest[1:], ")")
			if !closed {
				b.WriteString("$(")
				text = rest[1:]
				continue
			}
			v, ok := known[name]
			if v == "" {
				missing = append(missing, name)
			}
			if ok {
				b.WriteString(v)
			} else {
				b.WriteString("$(" + name + ")")
			}
			text = after
		default:
			b.WriteString("$" + rest[:1])
			text = rest[1:]
		}
	}
}
