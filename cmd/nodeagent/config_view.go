package main

import (
	"bytes"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"nodeagent/internal/config"
)

func configViewCommand() *cobra.Command {
	var flags config.Flags
	var merged, origins bool
	cmd := &cobra.Command{
		Use:   "view",
		Short: "Show the configuration as a file that can be given to --config",
		Long: "Show the configuration as a file that can be given to --config: what the file, the drop-ins and the\n" +
			"flags set, laid over each other. What only flags can say (the node's name, its kubeconfig) is not in it.",
		Example: "  nodeagent config view --config /etc/nodeagent/config.yaml --merged --show-origin",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			doc, err := readConfig(flags)
			if err != nil {
				return configError{err}
			}
			return viewConfig(cmd.OutOrStdout(), doc, merged, origins)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	configFlags(cmd, &flags)
	cmd.Flags().BoolVar(&merged, "merged", false, "with the defaults, as the daemon would have it")
	cmd.Flags().BoolVar(&origins, "show-origin", false, "behind each value, the file or flag that set it")
	return cmd
}

// viewConfig writes the two kinds that a file may have, one document each.
func viewConfig(w io.Writer, doc *configDocument, merged, origins bool) error {
	for i, part := range []struct {
		path string
		from map[string]any
	}{{"kubelet", doc.Kubelet}, {"agent", doc.Agent}} {
		var root yaml.Node
		if err := root.Encode(part.from); err != nil {
			return fmt.Errorf("encode the configuration: %w", err)
		}
		annotate(&root, part.path, doc.Origin, merged, origins)
		var text bytes.Buffer
		enc := yaml.NewEncoder(&text)
		enc.SetIndent(2)
		if err := enc.Encode(&root); err != nil {
			return fmt.Errorf("encode the configuration: %w", err)
		}
		if i > 0 {
			fmt.Fprintln(w, "---")
		}
		if _, err := w.Write(text.Bytes()); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

// annotate names behind each value who set it, and leaves out what nobody set,
// unless all is wanted. It tells whether anything is left.
func annotate(node *yaml.Node, path string, origin map[string]string, all, names bool) bool {
	var left []*yaml.Node
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		at := path + "." + key.Value
		from, set := origin[at]
		if key.Value == "apiVersion" || key.Value == "kind" { // on top; below there is none
			left = append(left, key, value)
			continue
		}
		if value.Kind == yaml.MappingNode && len(value.Content) > 0 {
			if annotate(value, at, origin, all, names) {
				left = append(left, key, value)
			}
			continue
		}
		if !set && !all || value.Tag == "!!null" || value.Value == hidden {
			continue
		}
		if names {
			comment(key, value, from)
		}
		left = append(left, key, value)
	}
	node.Content = left
	return len(left) > 0
}

// comment says who set a value. Of a list it stands above.
func comment(key, value *yaml.Node, from string) {
	if from == "" {
		from = "default"
	}
	if value.Kind == yaml.SequenceNode && len(value.Content) > 0 {
		key.HeadComment = from
		return
	}
	value.LineComment = from
}
