package source

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	kjson "sigs.k8s.io/json"
	sigsyaml "sigs.k8s.io/yaml"
)

// tree is a document with the position of each node, parsed when somebody asks
// for a line: only refused manifests pay for it.
type tree struct {
	doc    document
	parsed bool
	root   *yaml.Node // nil where the document cannot be parsed with positions
}

func (t *tree) node() *yaml.Node {
	if !t.parsed {
		t.parsed = true
		var root yaml.Node
		if yaml.Unmarshal(t.doc.text, &root) == nil && len(root.Content) == 1 {
			t.root = root.Content[0]
		}
	}
	return t.root
}

func (t *tree) lineOf(n *yaml.Node) int { return t.doc.line + n.Line - 1 }

// line is the line of the file on which the field stands, or on which the
// nearest field around it does.
func (t *tree) line(path string) int {
	n := t.node()
	if n == nil {
		return t.doc.line
	}
	key, _ := find(n, path)
	return t.lineOf(key)
}

// find walks down path (spec.containers[0].image, metadata.labels[a/b]) as far
// as it can: it returns the node that names the field, and its value.
func find(n *yaml.Node, path string) (key, value *yaml.Node) {
	key, value = n, n
	for path != "" {
		step, rest := nextStep(path)
		for value.Alias != nil {
			value = value.Alias
		}
		k, v := child(value, step)
		if v == nil {
			break
		}
		key, value, path = k, v, rest
	}
	return key, value
}

func nextStep(path string) (step, rest string) {
	path = strings.TrimPrefix(path, ".")
	if strings.HasPrefix(path, "[") {
		step, rest, _ = strings.Cut(path[1:], "]")
		return step, rest
	}
	end := strings.IndexAny(path, ".[")
	if end < 0 {
		return path, ""
	}
	return path[:end], path[end:]
}

func child(n *yaml.Node, step string) (key, value *yaml.Node) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == step {
				return n.Content[i], n.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(n.Content) {
			return n.Content[i], n.Content[i]
		}
	}
	return nil, nil
}

// explain compares a part of the document with the Go type that it was to fill,
// and finds fields that do not exist, that stand twice, or that hold another
// type.
func (t *tree) explain(into any, prefix string) findings {
	n := t.node()
	if n == nil {
		return nil
	}
	_, n = find(n, prefix)
	e := explainer{tree: t, budget: maxTokens}
	e.walk(n, reflect.TypeOf(into), prefix)
	return e.found
}

type explainer struct {
	tree   *tree
	found  findings
	budget int // nodes that may still be visited: aliases can make a tree a bush
}

func (e *explainer) say(n *yaml.Node, path, format string, args ...any) {
	if len(e.found) < maxFindings {
		e.found = append(e.found, finding{line: e.tree.lineOf(n), message: path + ": " + plain(fmt.Sprintf(format, args...))})
	}
}

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func (e *explainer) walk(n *yaml.Node, t reflect.Type, path string) {
	for n.Alias != nil {
		n = n.Alias
	}
	if e.budget--; e.budget < 0 || n.Tag == "!!null" {
		return
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	p := reflect.PointerTo(t)
	switch own := p.Implements(jsonUnmarshaler) || p.Implements(textUnmarshaler); {
	case own || t.Kind() == reflect.Interface:
		if n.Kind == yaml.ScalarNode {
			e.scalar(n, t, path)
		}
	case t.Kind() == reflect.Struct:
		e.mapping(n, path, func(key string) (reflect.Type, string) {
			return fieldOf(t, key), join(path, key)
		})
	case t.Kind() == reflect.Map:
		e.mapping(n, path, func(key string) (reflect.Type, string) {
			return t.Elem(), path + "[" + key + "]"
		})
	case t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8:
		if n.Kind != yaml.SequenceNode {
			e.say(n, path, "expected a list, found %s", nameOf(n))
			return
		}
		for i, c := range n.Content {
			e.walk(c, t.Elem(), fmt.Sprintf("%s[%d]", path, i))
		}
	case n.Kind != yaml.ScalarNode && t != reflect.TypeFor[json.RawMessage]():
		e.say(n, path, "expected %s, found %s", kindName(t), nameOf(n))
	case n.Kind == yaml.ScalarNode:
		e.scalar(n, t, path)
	}
}

// mapping walks the members of a mapping; typeOf gives a member's type (nil: no
// such field) and path.
func (e *explainer) mapping(n *yaml.Node, path string, typeOf func(string) (reflect.Type, string)) {
	if n.Kind != yaml.MappingNode {
		e.say(n, path, "expected a mapping of fields, found %s", nameOf(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Tag == "!!merge" {
			continue
		}
		t, at := typeOf(key.Value)
		switch {
		case seen[key.Value]:
			e.say(key, at, "field stands twice")
		case t == nil:
			e.say(key, at, "unknown field%s", e.meant(key.Value, typeOf))
		default:
			e.walk(value, t, at)
		}
		seen[key.Value] = true
	}
}

// meant offers the field that differs only in its first letter's case.
func (e *explainer) meant(key string, typeOf func(string) (reflect.Type, string)) string {
	if key == "" {
		return ""
	}
	other := strings.ToLower(key[:1]) + key[1:]
	if t, _ := typeOf(other); other != key && t != nil {
		return fmt.Sprintf(" (is %q meant?)", other)
	}
	return ""
}

// scalar tries the value alone, so that the decoder itself says whether it fits.
func (e *explainer) scalar(n *yaml.Node, t reflect.Type, path string) {
	text, err := json.Marshal(n.Value)
	if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0 {
		text, err = sigsyaml.YAMLToJSON([]byte(n.Value))
	}
	if err != nil {
		return
	}
	v := reflect.New(t).Interface()
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, v); err != nil {
		e.say(n, path, "expected %s, found %s", kindName(t), jsonName(text))
	}
}

// fieldOf is the type of the field that JSON knows by that name, or nil.
func fieldOf(t reflect.Type, name string) reflect.Type {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == name && tag != "" && tag != "-" {
			return f.Type
		}
		if f.Anonymous && tag == "" && f.Type.Kind() == reflect.Struct {
			if found := fieldOf(f.Type, name); found != nil {
				return found
			}
		}
	}
	return nil
}

func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string (put it in quotes)"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint64, reflect.Uint32:
		return "a whole number"
	default:
		return "a valid " + t.Name()
	}
}

func nameOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping of fields"
	case yaml.SequenceNode:
		return "a list"
	default:
		return "a single value"
	}
}

func jsonName(text []byte) string {
	switch {
	case len(text) == 0:
		return "nothing"
	case text[0] == '"':
		return "another string"
	case text[0] == 't', text[0] == 'f':
		return "true or false"
	default:
		return "a number"
	}
}
