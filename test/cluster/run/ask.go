package main

import (
	"context"
	"fmt"
	"strings"

	"nodeagent/test/cluster"
	"nodeagent/test/image"
)

// asked are a Service with a pod behind it, and a pod that asks for it by its name,
// as long as that is new to CoreDNS and the node: nothing tells a pod when both have
// heard.
const asked = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: c
        image: ` + image.Example + `
        imagePullPolicy: Never
        command: [/podtool, serve, ":8080", hello by a name]
        readinessProbe: {periodSeconds: 1, httpGet: {port: 8080}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`

const asks = `
apiVersion: v1
kind: Pod
metadata: {name: asks}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  activeDeadlineSeconds: 60
  containers:
  - name: c
    image: ` + image.Shell + `
    imagePullPolicy: Never
    command:
    - /bin/sh
    - -c
    - |
      for i in $(seq 100); do
        busybox nslookup web.default.svc.` + cluster.Domain + ` && /podtool get web:80 && exit 0
        sleep 0.2
      done
      exit 1
`

// ask has a pod find a Service by its name, and shows what it was told.
func (r *running) ask(ctx context.Context) error {
	if err := r.cluster.Apply(ctx, asked); err != nil {
		return err
	}
	if _, err := r.cluster.Kubectl(ctx, "wait", "--for=condition=Available", "deployment/web", "--timeout=60s"); err != nil {
		return err
	}
	address, err := r.cluster.Kubectl(ctx, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	if err != nil {
		return err
	}
	if err := r.cluster.Apply(ctx, asks); err != nil {
		return err
	}
	_, err = r.cluster.Kubectl(ctx, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/asks", "--timeout=90s")
	said, logErr := r.cluster.Kubectl(ctx, "logs", "asks", "--tail=20")
	if err != nil {
		return fmt.Errorf("%w\nthe pod that asks said (%v):\n%s", err, logErr, said)
	}
	fmt.Println(strings.TrimSpace(said))
	if !strings.Contains(said, address) || !strings.Contains(said, "hello by a name") {
		return fmt.Errorf("a pod found the Service web, but was told neither its address %s nor what it serves", address)
	}
	fmt.Printf("\na pod found the Service web at %s by its name, and had an answer\n", address)
	return nil
}
