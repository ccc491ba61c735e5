package compat

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

// Unused: nothing acts on the field yet. Sets: a flag that sets a field.
const (
	Unused State = "unused"
	Sets   State = "sets"
)

// Setting is a line of docs/configuration.md: a field of KubeletConfiguration on a
// node that stands alone and on one of a cluster, or a flag, which is the same on
// both.
type Setting struct {
	Name           string
	Alone, Cluster State
	Note           string
}

var (
	fieldLine = regexp.MustCompile("^\\| `([A-Za-z][A-Za-z0-9.]*)` \\| ([a-z ]+) \\| ([a-z ]+) \\| (.+) \\|$")
	flagLine  = regexp.MustCompile("^\\| `--([a-z0-9-]+)` \\| ([a-z ]+) \\| (.+) \\|$")
)

// ReadSettings returns the fields and the flags of a page.
func ReadSettings(path string) (fields, flags map[string]Setting, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	fields, flags = map[string]Setting{}, map[string]Setting{}
	n := 0
	for l := range strings.Lines(string(text)) {
		n++
		if !strings.HasPrefix(l, "| `") {
			continue
		}
		to, s := fields, Setting{}
		if m := fieldLine.FindStringSubmatch(strings.TrimSpace(l)); m != nil {
			s = Setting{Name: m[1], Alone: State(m[2]), Cluster: State(m[3]), Note: m[4]}
		} else if m := flagLine.FindStringSubmatch(strings.TrimSpace(l)); m != nil {
			to, s = flags, Setting{Name: m[1], Alone: State(m[2]), Cluster: State(m[2]), Note: m[3]}
		} else {
			return nil, nil, fmt.Errorf("%s:%d: neither | `field` | alone | in a cluster | note | nor | `--flag` | state | note |", path, n)
		}
		if _, twice := to[s.Name]; twice {
			return nil, nil, fmt.Errorf("%s:%d: %s is there twice", path, n, s.Name)
		}
		to[s.Name] = s
	}
	return fields, flags, nil
}

// Field is one of KubeletConfiguration: its path as in a file, and what it is.
type Field struct {
	Path string
	Go   string // its name in Go
	Type reflect.Type
}

// KubeletFields lists the fields of KubeletConfiguration, and those below each
// structure of its package for which below says so.
func KubeletFields(below func(path string) bool) []Field {
	var all []Field
	var walk func(t reflect.Type, prefix string)
	walk = func(t reflect.Type, prefix string) {
		for f := range t.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous || name == "" {
				continue
			}
			path := prefix + name
			all = append(all, Field{path, f.Name, f.Type})
			if f.Type.Kind() == reflect.Struct && f.Type.PkgPath() == t.PkgPath() && below(path) {
				walk(f.Type, path+".")
			}
		}
	}
	walk(reflect.TypeFor[kubeletv1beta1.KubeletConfiguration](), "")
	return all
}
