package node

import (
	"fmt"
	"maps"
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
		"linked":  spec("", show+"\nenv: [{name: URL, value: 'db://$(MY_DB_SERVICE_HOST):$(MY_DB_SERVICE_PORT_SQL)'}, {name: MY_DB_SERVICE_PORT, value: mine}]"),
		"alone":   spec("enableServiceLinks: false", show),
	}
}

// TestEnvironmentOfContainers: what a pod may know of itself and of its node
// reaches its containers, and commands may refer to it.
func TestEnvironmentOfContainers(t *testing.T) {
	n := newRowsNode(t, bed.AgentOptions{})
	must(t, n.a.WriteManifest("services", services("10.96.0.9"))) // what comes first is read first
	for name, text := range envPods() {
		n.write(t, name, text)
	}
	must(t, n.a.WriteManifest("elsewhere", strings.Replace(manifest("elsewhere", spec("", show)), "metadata:\n", "metadata:\n  namespace: other\n", 1)))
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
	t.Run("services", n.envServices) // ends with the daemon
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

// services are the API server's, one of the pods' namespace and one of another.
func services(db string) string {
	one := func(namespace, name, address, ports string) string {
		return "apiVersion: v1\nkind: Service\nmetadata: {namespace: " + namespace + ", name: " + name + "}\nspec: {clusterIP: '" + address + "', ports: [" + ports + "]}\n"
	}
	return one("default", "kubernetes", "10.96.0.1", "{name: https, port: 443, targetPort: 6443}") + "---\n" +
		one("default", "my-db", db, "{name: sql, port: 5432}, {name: ask, port: 53, protocol: UDP}") + "---\n" +
		one("other", "away", "fd00::9", "{port: 80}")
}

// ofServices are the variables that tell of services.
func (s shown) ofServices() map[string]string {
	all := map[string]string{}
	for _, e := range s.Env {
		name, value, _ := strings.Cut(e, "=")
		for _, service := range []string{"KUBERNETES_", "MY_DB_", "AWAY_"} {
			if strings.HasPrefix(name, service) {
				all[name] = value
			}
		}
	}
	return all
}

// envServices: containers are told of the services of their namespace and of the
// API server's, without links only of that, and not in place of what the pod
// says; a change is for the next container.
func (n *rowsNode) envServices(t *testing.T) {
	api := map[string]string{
		"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443", "KUBERNETES_SERVICE_PORT_HTTPS": "443", "KUBERNETES_PORT": "tcp://10.96.0.1:443",
		"KUBERNETES_PORT_443_TCP": "tcp://10.96.0.1:443", "KUBERNETES_PORT_443_TCP_PROTO": "tcp", "KUBERNETES_PORT_443_TCP_PORT": "443", "KUBERNETES_PORT_443_TCP_ADDR": "10.96.0.1",
	}
	linked, elsewhere := maps.Clone(api), maps.Clone(api)
	maps.Copy(linked, map[string]string{
		"MY_DB_SERVICE_HOST": "10.96.0.9", "MY_DB_SERVICE_PORT": "mine", "MY_DB_SERVICE_PORT_SQL": "5432", "MY_DB_SERVICE_PORT_ASK": "53", "MY_DB_PORT": "tcp://10.96.0.9:5432",
		"MY_DB_PORT_5432_TCP": "tcp://10.96.0.9:5432", "MY_DB_PORT_5432_TCP_PROTO": "tcp", "MY_DB_PORT_5432_TCP_PORT": "5432", "MY_DB_PORT_5432_TCP_ADDR": "10.96.0.9",
		"MY_DB_PORT_53_UDP": "udp://10.96.0.9:53", "MY_DB_PORT_53_UDP_PROTO": "udp", "MY_DB_PORT_53_UDP_PORT": "53", "MY_DB_PORT_53_UDP_ADDR": "10.96.0.9",
	})
	maps.Copy(elsewhere, map[string]string{
		"AWAY_SERVICE_HOST": "fd00::9", "AWAY_SERVICE_PORT": "80", "AWAY_PORT": "tcp://[fd00::9]:80",
		"AWAY_PORT_80_TCP": "tcp://[fd00::9]:80", "AWAY_PORT_80_TCP_PROTO": "tcp", "AWAY_PORT_80_TCP_PORT": "80", "AWAY_PORT_80_TCP_ADDR": "fd00::9",
	})
	s := n.shown(t, "linked", "app")
	if got := s.ofServices(); !maps.Equal(got, linked) || s.env("URL") != "db://10.96.0.9:5432" {
		t.Errorf("a pod is told of services\n%v\nand URL %q, want\n%v", got, s.env("URL"), linked)
	}
	if got := n.shown(t, "alone", "app").ofServices(); !maps.Equal(got, api) {
		t.Errorf("without links a pod is told of services\n%v\nwant\n%v", got, api)
	}
	if got := n.shown(t, "other/elsewhere", "app").ofServices(); !maps.Equal(got, elsewhere) {
		t.Errorf("a pod of another namespace is told of services\n%v\nwant\n%v", got, elsewhere)
	}
	before := app(n.pod(t, "linked", "running", inPhase("Running"))).ContainerID
	must(t, n.a.WriteManifest("services", services("10.96.0.10")))
	n.write(t, "later", spec("", show))
	if got := n.shown(t, "later", "app").env("MY_DB_SERVICE_HOST"); got != "10.96.0.10" {
		t.Errorf("after a change a new pod is told of %q", got)
	}
	if after := app(n.pod(t, "linked", "running", inPhase("Running"))).ContainerID; after != before {
		t.Errorf("a change of a service has replaced a container: %s, before %s", after, before)
	}
	must(t, n.a.WriteManifest("selecting", strings.Replace(services("10.96.0.9"), "clusterIP:", "selector: {app: db}, clusterIP:", 1)))
	n.saysOf(t, "selecting.yaml", "spec.selector: Forbidden: without an API server pods are only told of a service's address and ports")
	must(t, n.a.RemoveManifest("selecting"))
	must(t, n.a.Kill())
	out, err := n.a.CLI(n.ctx, "pods", "--hostname-override", "node")
	if err != nil || !strings.Contains(out, "linked-node") || strings.Contains(out, "cannot use") {
		t.Errorf("without the daemon the command line says %v,\n%s", err, out)
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
