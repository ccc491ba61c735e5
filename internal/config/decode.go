package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	kjson "sigs.k8s.io/json"
	sigsyaml "sigs.k8s.io/yaml"
)

// document is one YAML document of a configuration file.
type document struct {
	line             int
	apiVersion, kind string
	fields           []string // of its top level, in order
	root             *yaml.Node
	text             []byte
}

// split parses a file into its documents; empty ones are left out.
func split(text []byte) ([]document, error) {
	var docs []document
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var root yaml.Node
		err := dec.Decode(&root)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, err
		}
		if len(root.Content) == 0 || root.Content[0].Kind == yaml.ScalarNode && root.Content[0].Tag == "!!null" {
			continue
		}
		body := root.Content[0]
		if body.Kind != yaml.MappingNode {
			return nil, fmt.Errorf("line %d: a configuration is a mapping of fields", body.Line)
		}
		d := document{line: body.Line, root: body}
		for i := 0; i+1 < len(body.Content); i += 2 {
			key := body.Content[i]
			if slices.Contains(d.fields, key.Value) {
				return nil, fmt.Errorf("line %d: field %q is there twice", key.Line, key.Value)
			}
			d.fields = append(d.fields, key.Value)
			switch key.Value {
			case "apiVersion":
				d.apiVersion = body.Content[i+1].Value
			case "kind":
				d.kind = body.Content[i+1].Value
			}
		}
		if d.text, err = yaml.Marshal(body); err != nil {
			return nil, err
		}
		docs = append(docs, d)
	}
}

// into decodes the document over what the value holds already.
func (d document) into(to any) error {
	asJSON, err := sigsyaml.YAMLToJSONStrict(d.text)
	if err != nil {
		return fmt.Errorf("line %d: %w", d.line, err)
	}
	strict, err := kjson.UnmarshalStrict(asJSON, to, kjson.DisallowDuplicateFields, kjson.DisallowUnknownFields)
	if err != nil {
		return fmt.Errorf("%s in the document of line %d: %w", d.kind, d.line, err)
	}
	var all []error
	for _, e := range strict {
		all = append(all, d.locate(e))
	}
	return errors.Join(all...)
}

// locate adds the line to a strict decoding error, which names a path such as
// unknown field "podNetwork.cidr".
func (d document) locate(err error) error {
	_, rest, ok := strings.Cut(err.Error(), `"`)
	path, _, _ := strings.Cut(rest, `"`)
	if !ok {
		return fmt.Errorf("line %d: %w", d.line, err)
	}
	node, line := d.root, d.line
	for part := range strings.SplitSeq(path, ".") {
		name, _, _ := strings.Cut(part, "[")
		if node == nil || node.Kind != yaml.MappingNode {
			break
		}
		var next *yaml.Node
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == name {
				line, next = node.Content[i].Line, node.Content[i+1]
			}
		}
		node = next
	}
	return fmt.Errorf("line %d: %s: %w", line, d.kind, err)
}
