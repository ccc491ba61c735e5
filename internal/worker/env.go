package worker

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// environment returns the container's variables in the order of the spec. A
// value may refer to the variables before it; a name that comes twice has its
// last value, at its first place.
func environment(c *corev1.Container) []*runtimeapi.KeyValue {
	known := map[string]string{}
	var order []string
	for _, e := range c.Env {
		if _, twice := known[e.Name]; !twice {
			order = append(order, e.Name)
		}
		known[e.Name] = expand(e.Value, known)
	}
	all := make([]*runtimeapi.KeyValue, 0, len(order))
	for _, name := range order {
		all = append(all, &runtimeapi.KeyValue{Key: name, Value: []byte(known[name])})
	}
	return all
}

// expandAll expands each argument by the container's variables.
func expandAll(args []string, env []*runtimeapi.KeyValue) []string {
	if len(args) == 0 {
		return nil
	}
	known := make(map[string]string, len(env))
	for _, e := range env {
		known[e.Key] = string(e.Value)
	}
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = expand(a, known)
	}
	return out
}

// expand replaces $(NAME) by the variable of that name, once; $$ stands for one
// $, and what names no variable stays as it is (Kubernetes' expansion syntax).
func expand(text string, known map[string]string) string {
	if !strings.Contains(text, "$") {
		return text
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(text, '$')
		if i < 0 || i == len(text)-1 {
			return b.String() + text
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
			if v, ok := known[name]; ok {
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
