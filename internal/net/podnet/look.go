package podnet

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Conf is the CNI configuration that would be in force, for who only looks.
type Conf struct {
	File    string   // "" without one
	Plugins []string // programs that it names, those for addresses too
}

// LookConf finds the configuration that a Network of the directory would use.
// An error says that there are files and none can be used.
func LookConf(dir string) (Conf, error) {
	conf, _, err := findConf(dir)
	if err != nil && conf == nil {
		return Conf{}, err
	}
	if conf == nil {
		return Conf{}, nil
	}
	var c struct {
		Plugins []pluginConf `json:"plugins"`
		pluginConf
	}
	if err := json.Unmarshal(conf.bytes, &c); err != nil { // it was decoded before
		return Conf{}, fmt.Errorf("decode %s: %w", conf.file, err)
	}
	out := Conf{File: conf.file}
	for _, p := range append(c.Plugins, c.pluginConf) {
		for _, name := range []string{p.Type, p.IPAM.Type} {
			if name != "" && !slices.Contains(out.Plugins, name) {
				out.Plugins = append(out.Plugins, name)
			}
		}
	}
	return out, nil
}
