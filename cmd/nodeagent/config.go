package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nodeagent/internal/config"
	"nodeagent/internal/diag"
	"nodeagent/internal/server"
)

// configDocument is the document of "config".
type configDocument struct {
	diag.TypeMeta `json:",inline"`
	NodeName      string         `json:"nodeName"`
	NodeIPs       []string       `json:"nodeIPs"`
	RootDir       string         `json:"rootDir"`
	Kubelet       map[string]any `json:"kubelet"`
	Agent         map[string]any `json:"agent"`
	Cluster       map[string]any `json:"cluster,omitempty"` // what the flags say of it
	Proxy         map[string]any `json:"proxy,omitempty"`   // of services
	// Origin says for each field that is not at its default who set it.
	Origin map[string]string `json:"origin"`
	Unused []string          `json:"unused"`
}

func configCommand() *cobra.Command {
	var out format
	var flags config.Flags
	var all bool
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show the configuration that is in force",
		Long: "Show the configuration as the daemon would read it now: defaults, file, drop-ins and flags laid over\n" +
			"each other, what set each field, and fields that this version does not act on.",
		Example: "  nodeagent config --config /etc/nodeagent/config.yaml\n  nodeagent config -o yaml",
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			doc, err := readConfig(flags)
			if err != nil {
				return configError{err}
			}
			return showConfig(cmd, out, doc, all)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	configFlags(cmd, &flags)
	outputFlag(cmd, &out, formatTable, formatJSON, formatYAML)
	cmd.Flags().BoolVar(&all, "all", false, "in the table, also fields that are empty or off")
	cmd.AddCommand(configViewCommand())
	return cmd
}

// secretFields may carry tokens, so their values are not shown.
var secretFields = []string{"staticPodURLHeader"}

const hidden = "(hidden)"

// readConfig reads the configuration and who set what of it.
func readConfig(flags config.Flags) (*configDocument, error) {
	cfg, err := config.Load(flags)
	if err != nil {
		return nil, err
	}
	doc := &configDocument{TypeMeta: diag.Of("Config"), NodeIPs: []string{}, Unused: []string{}, Origin: map[string]string{}}
	if err := doc.fill(cfg); err != nil {
		return nil, err
	}
	doc.each(func(path string, _ any) {
		if from, set := originOf(cfg.Origin, path); set {
			doc.Origin[path] = from
		}
	})
	return doc, nil
}

// originOf says who set a field. One whose value is hidden was set by parts, and a
// label's value by the flag of all labels.
func originOf(origin map[string]string, path string) (string, bool) {
	if from, set := origin[path]; set {
		return from, true
	}
	for _, set := range slices.Sorted(maps.Keys(origin)) {
		if strings.HasPrefix(set, path+".") || strings.HasPrefix(path, set+".") {
			return origin[set], true
		}
	}
	return "", false
}

func (d *configDocument) fill(cfg *config.Config) error {
	d.NodeName, d.RootDir = cfg.NodeName, cfg.RootDir
	d.NodeIPs, d.Unused = append([]string{}, cfg.NodeIPs...), append([]string{}, cfg.Unused...)
	for _, part := range []struct {
		from any
		to   *map[string]any
	}{{server.ShownConfig(&cfg.Kubelet), &d.Kubelet}, {cfg.Agent, &d.Agent}, {cfg.Cluster, &d.Cluster}, {cfg.Proxy, &d.Proxy}} {
		text, err := json.Marshal(part.from)
		if err != nil {
			return fmt.Errorf("encode the configuration: %w", err)
		}
		*part.to = nil
		if err := json.Unmarshal(text, part.to); err != nil {
			return fmt.Errorf("encode the configuration: %w", err)
		}
	}
	for _, f := range secretFields {
		if v, set := d.Kubelet[f].(map[string]any); set && len(v) > 0 {
			d.Kubelet[f] = hidden
		}
	}
	d.Kubelet["apiVersion"], d.Kubelet["kind"] = "kubelet.config.k8s.io/v1beta1", "KubeletConfiguration"
	if d.Proxy != nil {
		d.Proxy["apiVersion"], d.Proxy["kind"] = "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration"
	}
	d.Agent["apiVersion"], d.Agent["kind"] = config.APIVersion, "NodeAgentConfiguration"
	return nil
}

// each calls f with every field, in order.
func (d *configDocument) each(f func(path string, value any)) {
	f("nodeName", d.NodeName)
	f("nodeIPs", d.NodeIPs)
	f("rootDir", d.RootDir)
	eachField("kubelet", d.Kubelet, f)
	eachField("agent", d.Agent, f)
	eachField("cluster", d.Cluster, f)
	eachField("proxy", d.Proxy, f)
}

func eachField(prefix string, from map[string]any, f func(path string, value any)) {
	for _, key := range slices.Sorted(maps.Keys(from)) {
		if key == "apiVersion" || key == "kind" {
			continue
		}
		if sub, ok := from[key].(map[string]any); ok && len(sub) > 0 {
			eachField(prefix+"."+key, sub, f)
			continue
		}
		f(prefix+"."+key, from[key])
	}
}

func showConfig(cmd *cobra.Command, out format, doc *configDocument, all bool) error {
	if out != formatTable {
		return show(cmd.OutOrStdout(), out, doc)
	}
	t := &table{head: []string{"FIELD", "VALUE", "SET-BY"}}
	doc.each(func(path string, value any) {
		text := fmt.Sprint(value)
		if b, err := json.Marshal(value); err == nil {
			text = string(b)
		}
		from, set := doc.Origin[path]
		if !set {
			from = "default"
		}
		if !set && !all && slices.Contains([]string{"null", `""`, "false", "0", `"0s"`, "{}", "[]"}, text) {
			return
		}
		t.add(path, text, from)
	})
	if err := t.write(cmd.OutOrStdout()); err != nil {
		return err
	}
	for _, field := range doc.Unused {
		say(cmd, "this version does not act on %s", field)
	}
	return nil
}
