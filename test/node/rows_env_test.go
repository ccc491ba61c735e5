package node

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// envPods are the pods of TestEnvironmentOfContainers.
func envPods() map[string]string {
	field := func(name, path string) string {
		return fmt.Sprintf("- {name: %s, valueFrom: {fieldRef: {fieldPath: \"%s\"}}}\n", name, path)
	}
	resource := func(name, field, divisor string) string {
		return fmt.Sprintf("- {name: %s, valueFrom: {resourceFieldRef: {resource: %s, divisor: %s}}}\n", name, field, divisor)
	}
	fields := show + "\nenv:\n" + field("NAME", "metadata.name") + field("NS", "metadata.namespace") + field("UID", "metadata.uid") +
		field("HASH", "metadata.annotations['kubernetes.io/config.hash']") +
		field("NODE", "spec.nodeName") + field("SA", "spec.serviceAccountName") +
		field("HOST", "status.hostIP") + field("HOSTS", "status.hostIPs") + field("IP", "status.podIP") + field("IPS", "status.podIPs") +
		"- {name: URL, value: 'http://$(IP):80/$$(IP)/$(NONE)'}\n"
	return map[string]string{
		"fields":  spec("", fields),
		"onhost":  spec("hostNetwork: true", fields),
		"limited": spec("", show+"\nresources: {limits: {cpu: 1500m, memory: 64Mi}}\nenv:\n"+resource("CPU", "limits.cpu", "1m")+resource("CORES", "limits.cpu", "'0'")+resource("MEM", "limits.memory", "1Mi")+resource("REQ", "requests.memory", "1")),
		"free":    spec("", show+"\nenv:\n"+resource("CORES", "limits.cpu", "1")+resource("MEM", "limits.memory", "1Ki")+resource("REQ", "requests.cpu", "1m")),
		"args":    spec("restartPolicy: Never", "command: [/podtool, seq, show]\nargs: ['$(NAME)', $$(NAME), $(NONE)]\nenv:\n"+field("NAME", "metadata.name")),
		"filed": spec("volumes: [{name: v, emptyDir: {}}]\ninitContainers: [{name: first, image: "+image.Example+", command: [/podtool, write, /v/env, \"KEY='left by another'\"], volumeMounts: [{name: v, mountPath: /v}]}]",
			show+"\nenv: [{name: V, valueFrom: {fileKeyRef: {volumeName: v, path: env, key: KEY}}}]"),
		"renamed": spec("hostnameOverride: other.example.test", show),
	}
}

// TestEnvironmentOfContainers: what a pod may know of itself and of its node
// reaches its containers, and commands may refer to it.
func TestEnvironmentOfContainers(t *testing.T) {
	n := newRowsNode(t, bed.AgentOptions{})
	for name, text := range envPods() {
		n.write(t, name, text)
	}
	t.Run("fields", n.envFields)
	t.Run("resources", n.envResources)
	s := n.shown(t, "args", "app")
	if got, want := strings.Join(s.Args, " "), "/podtool seq show args-node $(NAME) $(NONE)"; got != want {
		t.Errorf("the arguments are %q, want %q", got, want)
	}
	if s := n.shown(t, "filed", "app"); s.env("V") != "left by another" {
		t.Errorf("the variable from a file is %q", s.env("V"))
	}
	if s := n.shown(t, "renamed", "app"); s.Hostname != "other.example.test" || s.env("HOSTNAME") != "other.example.test" {
		t.Errorf("hostnameOverride makes the host name %q and HOSTNAME %q", s.Hostname, s.env("HOSTNAME"))
	}
}

// env is the value of a variable, "?" where it is not set.
func (s shown) env(name string) string {
	for _, e := range s.Env {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value
		}
	}
	return "?"
}

func (n *rowsNode) envFields(t *testing.T) {
	for _, name := range []string{"fields", "onhost"} {
		s := n.shown(t, name, "app")
		p := n.pod(t, name, "running", inPhase("Running"))
		var ips, hosts []string
		for _, ip := range p.Status.PodIPs {
			ips = append(ips, ip.IP)
		}
		for _, ip := range p.Status.HostIPs {
			hosts = append(hosts, ip.IP)
		}
		for variable, want := range map[string]string{
			"NAME": p.Name, "NS": p.Namespace, "UID": string(p.UID), "HASH": string(p.UID),
			"NODE": "node", "SA": "", "HOST": bed.NodeIP, "HOSTS": strings.Join(hosts, ","),
			"IP": p.Status.PodIP, "IPS": strings.Join(ips, ","), "URL": "http://" + p.Status.PodIP + ":80/$(IP)/$(NONE)",
		} {
			if got := s.env(variable); got != want || p.Status.PodIP == "" {
				t.Errorf("pod %s: %s is %q, want %q", name, variable, got, want)
			}
		}
	}
}

func (n *rowsNode) envResources(t *testing.T) {
	memory, err := os.ReadFile("/proc/meminfo")
	must(t, err)
	total := strings.Fields(string(memory))[1]
	for name, all := range map[string]map[string]string{
		"limited": {"CPU": "1500", "CORES": "2", "MEM": "64", "REQ": "67108864"},
		"free":    {"CORES": fmt.Sprint(runtime.NumCPU()), "MEM": total, "REQ": "0"},
	} {
		s := n.shown(t, name, "app")
		for variable, want := range all {
			if got := s.env(variable); got != want {
				t.Errorf("pod %s: %s is %q, want %q", name, variable, got, want)
			}
		}
	}
}
