package cluster

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"strings"

	"nodeagent/test/bed"
)

// MetricsServerVersion is the release of metrics-server that is built: by its own
// go.mod of this Kubernetes' minor version.
const MetricsServerVersion = "0.9.0"

const metricsPort = "4443"

// metricsObjects are what metrics-server's own manifests make of accounts, rights and
// the API service, and what leads to it as a process of the bed: the service has no
// selector, and the API server connects to endpoints by itself.
const metricsObjects = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: metrics-server, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "system:metrics-server"}
rules:
- {apiGroups: [""], resources: [nodes/metrics], verbs: [get]}
- {apiGroups: [""], resources: [pods, nodes], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "system:metrics-server"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:metrics-server"}
subjects: [{kind: ServiceAccount, name: metrics-server, namespace: kube-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "metrics-server:system:auth-delegator"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
subjects: [{kind: ServiceAccount, name: metrics-server, namespace: kube-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: metrics-server-auth-reader, namespace: kube-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: extension-apiserver-authentication-reader}
subjects: [{kind: ServiceAccount, name: metrics-server, namespace: kube-system}]
---
apiVersion: v1
kind: Service
metadata: {name: metrics-server, namespace: kube-system}
spec: {ports: [{name: https, port: 443, targetPort: %[1]s}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: metrics-server, namespace: kube-system, labels: {kubernetes.io/service-name: metrics-server}}
addressType: IPv4
endpoints: [{addresses: [%[2]s], conditions: {ready: true}}]
ports: [{name: https, port: %[1]s}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec:
  group: metrics.k8s.io
  version: v1beta1
  service: {name: metrics-server, namespace: kube-system}
  caBundle: %[3]s
  groupPriorityMinimum: 100
  versionPriority: 100
`

// MetricsServer starts metrics-server as a process of the bed. It has read each node
// twice when it is ready; what it asks nodes, it asks as its account, by a token.
func (c *Cluster) MetricsServer(ctx context.Context) (*Component, error) {
	tools, err := MetricsServerProgram(ctx, c.opts.Talk)
	if err != nil {
		return nil, err
	}
	if err := c.Apply(ctx, fmt.Sprintf(metricsObjects, metricsPort, bed.NodeIP, base64.StdEncoding.EncodeToString(c.ca.pem))); err != nil {
		return nil, err
	}
	token, err := c.ServiceToken(ctx, "kube-system", "metrics-server")
	if err != nil {
		return nil, err
	}
	kubeconfig, err := c.writeKubeconfig("metrics-server", "token: "+token)
	if err != nil {
		return nil, err
	}
	serving, err := c.ca.server("metrics-server", "metrics-server.kube-system.svc", bed.NodeIP)
	if err != nil {
		return nil, err
	}
	if err := serving.write(c.pki(), "metrics-server"); err != nil {
		return nil, err
	}
	p := c.component(tools, "metrics-server", answers("https://"+net.JoinHostPort(bed.NodeIP, metricsPort)+"/readyz"), []string{
		"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=" + bed.NodeIP, "--secure-port=" + metricsPort,
		"--tls-cert-file=" + c.file("metrics-server.crt"), "--tls-private-key-file=" + c.file("metrics-server.key"),
		"--kubelet-preferred-address-types=InternalIP", "--kubelet-use-node-status-port", "--kubelet-insecure-tls",
		"--kubelet-request-timeout=9s", "--metric-resolution=10s",
	})
	return p, p.Start(ctx)
}

// ServiceToken is a token of a service account.
func (c *Cluster) ServiceToken(ctx context.Context, namespace, account string) (string, error) {
	out, err := c.Kubectl(ctx, "create", "token", account, "-n", namespace)
	return strings.TrimSpace(out), err
}
