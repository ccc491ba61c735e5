package validate

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// TestService: what pods can be told of is judged as the API server judges it,
// and what nobody would do about a Service of a file is refused by name.
func TestService(t *testing.T) {
	const (
		head = "metadata: {name: a, namespace: d}\n"
		port = "ports: [{port: 80}]"
	)
	spec := func(fields ...string) string { return head + "spec: {" + strings.Join(fields, ", ") + "}" }
	for _, c := range []struct{ text, want string }{
		{spec("clusterIP: 10.0.0.1", port), ""},
		{spec("clusterIP: 'fd00::1'", port), ""},
		// As an API server shows its own.
		{spec("clusterIP: 10.0.0.1", "clusterIPs: [10.0.0.1, 'fd00::1']", "internalTrafficPolicy: Cluster", "ipFamilies: [IPv4]", "ipFamilyPolicy: SingleStack",
			"ports: [{name: https, port: 443, protocol: TCP, targetPort: 6443}]", "sessionAffinity: None", "type: ClusterIP"), ""},
		{spec("clusterIP: 10.0.0.1", "ports: [{name: a, port: 53, protocol: UDP}, {name: b, port: 53}, {name: c, port: 53, protocol: SCTP}]"), ""},
		{"metadata: {name: 1-a, namespace: d}\nspec: {clusterIP: 10.0.0.1, " + port + "}", ""},

		{"metadata: {name: a.b, namespace: d}\nspec: {clusterIP: 10.0.0.1, " + port + "}", "metadata.name"},
		{"metadata: {namespace: d}\nspec: {clusterIP: 10.0.0.1, " + port + "}", "metadata.name"},
		{spec(port), "spec.clusterIP"},
		{spec("clusterIP: None", port), "spec.clusterIP"},
		{spec("clusterIP: 10.0.0.01", port), "spec.clusterIP"},
		{spec("clusterIP: '::ffff:10.0.0.1'", port), "spec.clusterIP"},
		{spec("clusterIP: 'fe80::1%eth0'", port), "spec.clusterIP"},
		{spec("clusterIP: 10.0.0.1", "clusterIPs: ['fd00::1']", port), "spec.clusterIPs"},
		{spec("clusterIP: 10.0.0.1", "clusterIPs: [10.0.0.1, 10.0.0.2]", port), "spec.clusterIPs"},
		{spec("clusterIP: 10.0.0.1"), "spec.ports"},
		{spec("clusterIP: 10.0.0.1", "ports: [{port: 0}]"), "spec.ports[0].port"},
		{spec("clusterIP: 10.0.0.1", "ports: [{port: 1, protocol: ICMP}]"), "spec.ports[0].protocol"},
		{spec("clusterIP: 10.0.0.1", "ports: [{port: 1, name: A}]"), "spec.ports[0].name"},
		{spec("clusterIP: 10.0.0.1", "ports: [{port: 1, name: a}, {port: 2}]"), "spec.ports[1].name"},
		{spec("clusterIP: 10.0.0.1", "ports: [{port: 1, name: a}, {port: 2, name: a}]"), "spec.ports[1].name"},
		{spec("clusterIP: 10.0.0.1", "ports: [{port: 1, name: a}, {port: 1, name: b, protocol: TCP}]"), "spec.ports[1]"},

		{spec("clusterIP: 10.0.0.1", port, "selector: {app: a}"), "spec.selector"},
		{spec("clusterIP: 10.0.0.1", port, "type: NodePort"), "spec.type"},
		{spec("clusterIP: 10.0.0.1", port, "sessionAffinity: ClientIP"), "spec.sessionAffinity"},
		{spec("clusterIP: 10.0.0.1", port, "internalTrafficPolicy: Local"), "spec.internalTrafficPolicy"},
		{spec("clusterIP: 10.0.0.1", port, "externalIPs: [192.0.2.1]"), "spec.externalIPs"},
		{spec("clusterIP: 10.0.0.1", port, "publishNotReadyAddresses: true"), "spec.publishNotReadyAddresses"},
		{spec("clusterIP: 10.0.0.1", "ports: [{port: 1, nodePort: 30000}]"), "spec.ports[0].nodePort"},
		{spec("type: ExternalName", "externalName: example.org", port), "spec.type spec.externalName spec.clusterIP"},
	} {
		var s corev1.Service
		if err := yaml.UnmarshalStrict([]byte(c.text), &s); err != nil {
			t.Fatal(err)
		}
		var fields []string
		for _, e := range Service(&s) {
			fields = append(fields, e.Field)
		}
		if got := strings.Join(fields, " "); got != c.want {
			t.Errorf("of\n%s\nwrong are %q, want %q", c.text, got, c.want)
		}
	}
}
