package config

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Where the parts of the configuration are in Config.Origin.
const (
	originKubelet = "kubelet"
	originAgent   = "agent"
	originCluster = "cluster"
)

// noteOrigins remembers who set each value of a document. A list is one value, a
// mapping is its fields.
func (c *Config) noteOrigins(path, from string, node *yaml.Node) {
	if node.Kind != yaml.MappingNode || len(node.Content) == 0 {
		c.origin(path, from)
		return
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if key := node.Content[i].Value; path != originKubelet && path != originAgent || key != "apiVersion" && key != "kind" {
			c.noteOrigins(path+"."+key, from, node.Content[i+1])
		}
	}
}

func (c *Config) origin(path, from string) {
	if c.Origin == nil {
		c.Origin = map[string]string{}
	}
	c.Origin[path] = from
}

// empty tells that a value says nothing: kubeadm writes many such fields out.
func empty(node *yaml.Node) bool {
	switch node.Kind {
	case yaml.MappingNode:
		for i := 1; i < len(node.Content); i += 2 {
			if !empty(node.Content[i]) {
				return false
			}
		}
		return true
	case yaml.SequenceNode:
		return len(node.Content) == 0
	}
	return node.Tag == "!!null" || slices.Contains([]string{"", "0", "0s", "0.0", "false"}, strings.TrimSpace(node.Value))
}
