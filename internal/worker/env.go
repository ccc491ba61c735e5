package worker

import (
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"nodeagent/internal/pod"
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
		known[e.Name] = pod.Expand(e.Value, known)
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
		out[i] = pod.Expand(a, known)
	}
	return out
}
