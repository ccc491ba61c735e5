package pod

import (
	"fmt"
	"strings"
)

// FileVariable finds a variable in a file of variables that a container has
// written (fileKeyRef, KEP-3721): lines of NAME='value', where a value may go on
// over lines; blank lines and those that begin with # are passed over. A variable
// without a value counts as absent, as with kubelet. Errors name lines and no
// values, since the file may hold secrets; what stands behind the variable is not
// looked at.
func FileVariable(text, name string) (value string, found bool, err error) {
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimLeft(fileLine(lines[i]), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		key, rest, ok := strings.Cut(line, "=")
		switch {
		case !ok:
			return "", false, fmt.Errorf("invalid environment variable format at line %d: missing '='", i+1)
		case strings.TrimRight(key, " \t") == "":
			return "", false, fmt.Errorf("invalid environment variable format at line %d: empty variable name", i+1)
		case strings.TrimRight(key, " \t") != key:
			return "", false, fmt.Errorf("invalid environment variable format at line %d: whitespace before '=' is not allowed", i+1)
		case strings.TrimLeft(rest, " \t") != rest: // as in a shell: the value is empty
			if key == name {
				return "", false, nil
			}
			continue
		case !strings.HasPrefix(rest, "'"):
			return "", false, fmt.Errorf("invalid environment variable format at line %d: value must be enclosed in single quotes", i+1)
		}
		first := i
		var b strings.Builder
		for rest = rest[1:]; ; rest = fileLine(lines[i]) {
			inner, behind, closed := strings.Cut(rest, "'")
			b.WriteString(inner)
			if closed {
				if behind = strings.TrimLeft(behind, " \t"); behind != "" && behind[0] != '#' {
					return "", false, fmt.Errorf("invalid environment variable format at line %d: unexpected content after closing quote", i+1)
				}
				break
			}
			b.WriteByte('\n')
			if i++; i == len(lines) {
				return "", false, fmt.Errorf("invalid environment variable format starting at line %d: unclosed single quote", first+1)
			}
		}
		if key == name {
			return b.String(), b.Len() > 0, nil
		}
	}
	return "", false, nil
}

func fileLine(line string) string { return strings.TrimSuffix(line, "\r") }
