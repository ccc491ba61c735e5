// Package compat holds docs/compatibility.md, which tells of every field of a pod
// what this node does with it, against the types of k8s.io/api and against the
// code. It changes nothing and runs nothing; single-threaded.
package compat

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// State is what the node does with a field.
type State string

// The states that the page explains.
const (
	Honoured   State = "honoured"
	Partly     State = "partly"
	Refused    State = "refused"
	NoBusiness State = "no business"
)

// Row is a line of the page.
type Row struct {
	Field string // Type.name, as in JSON
	State State
	Note  string
}

var line = regexp.MustCompile("^\\| `([A-Za-z]+\\.[A-Za-z]+)` \\| ([a-z ]+) \\| (.+) \\|$")

// Read returns the rows of a page by their fields.
func Read(path string) (map[string]Row, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	rows := map[string]Row{}
	n := 0
	for l := range strings.Lines(string(text)) {
		n++
		if !strings.HasPrefix(l, "| `") {
			continue
		}
		m := line.FindStringSubmatch(strings.TrimSpace(l))
		if m == nil {
			return nil, fmt.Errorf("%s:%d: not | `Type.field` | state | note |", path, n)
		}
		if _, twice := rows[m[1]]; twice {
			return nil, fmt.Errorf("%s:%d: %s is there twice", path, n, m[1])
		}
		rows[m[1]] = Row{Field: m[1], State: State(m[2]), Note: m[3]}
	}
	return rows, nil
}

// Fields lists the fields that a page must have: all of a PodSpec, and those
// below each field for which below says so.
func Fields(below func(field string) bool) []string {
	var all []string
	seen := map[reflect.Type]bool{}
	var walk func(t reflect.Type, owner string)
	walk = func(t reflect.Type, owner string) {
		for f := range t.Fields() {
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous && (name == "" || strings.Contains(options, "inline")) {
				walk(f.Type, owner)
				continue
			}
			field := owner + "." + name
			all = append(all, field)
			if next, ok := structOf(f.Type); ok && !seen[next] && below(field) {
				seen[next] = true
				walk(next, next.Name())
			}
		}
	}
	walk(reflect.TypeFor[corev1.PodSpec](), "PodSpec")
	return all
}

// structOf finds the struct of k8s.io/api/core that a field's type leads to.
func structOf(t reflect.Type) (reflect.Type, bool) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t, t.Kind() == reflect.Struct && t.PkgPath() == reflect.TypeFor[corev1.PodSpec]().PkgPath()
}
