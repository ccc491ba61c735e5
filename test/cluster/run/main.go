// Command run is "make cluster": a control plane of Kubernetes with one nodeagent
// node, which programs the services, too, and CoreDNS under ./.cluster, and a kubectl
// for it, until Ctrl-C, which leaves nothing behind. With -once it ends with 0 when a
// pod has found a Service by its name.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"nodeagent/test/bed"
	"nodeagent/test/cluster"
)

func main() {
	once := flag.Bool("once", false, "end with 0 when a pod has found a Service by its name")
	data := flag.String("data", ".cluster", "keep the cluster's files in `dir`")
	limit := flag.Duration("limit", 5*time.Minute, "give up after `time`: with everything built, when the cluster is not up or, with -once, no answer came")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, *once, *data, *limit); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, once bool, data string, limit time.Duration) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("namespaces, cgroups and mounts need root: sudo make cluster")
	}
	for _, get := range []func(context.Context) error{programs, dns} {
		if err := get(ctx); err != nil {
			return err
		}
	}
	fmt.Printf("starting containerd %s in %s, in a network namespace without an uplink\n", bed.ContainerdVersion, data)
	b, err := bed.Start(ctx, bed.Options{Data: data, Private: true, Talk: os.Stdout})
	if err != nil {
		return err
	}
	defer func() {
		fmt.Println("removing the cluster and everything on it")
		err = errors.Join(err, b.Close())
	}()
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	r := &running{bed: b, data: data}
	if err := r.up(bounded); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("%w\n%s", err, r.logs())
	}
	if err := r.tell(); err != nil {
		return err
	}
	if once {
		if err := r.ask(bounded); err != nil {
			return fmt.Errorf("%w\n%s", err, r.logs())
		}
		return nil
	}
	fmt.Println("Ctrl-C ends it")
	return r.wait(ctx)
}

func programs(ctx context.Context) error { _, err := cluster.Programs(ctx, os.Stdout); return err }
func dns(ctx context.Context) error      { _, err := cluster.DNS(ctx, os.Stdout); return err }

// running is a cluster with its node and what a node has beside the daemon.
type running struct {
	bed  *bed.Bed
	data string

	cluster *cluster.Cluster
	agent   *bed.AgentProcess
	dns     *cluster.Component
}

// nodeName is that of the only node.
const nodeName = "node"

// up brings everything up, each when what it cannot do without is there.
func (r *running) up(ctx context.Context) (err error) {
	fmt.Println("building the example images and importing them")
	if err := r.bed.Import(ctx); err != nil {
		return err
	}
	fmt.Printf("starting etcd %s and the control plane of Kubernetes %s\n", cluster.EtcdVersion, cluster.KubernetesVersion)
	if r.cluster, err = cluster.Start(ctx, r.bed, cluster.Options{Talk: os.Stdout}); err != nil {
		return err
	}
	if err := r.join(ctx); err != nil {
		return err
	}
	fmt.Printf("starting CoreDNS %s\n", cluster.CoreDNSVersion)
	r.dns, err = r.cluster.CoreDNS(ctx)
	return err
}

// join starts the daemon as a node that programs the services, too, and waits until
// it is Ready.
func (r *running) join(ctx context.Context) error {
	file, err := r.cluster.Node(nodeName)
	if err != nil {
		return err
	}
	r.agent, err = r.bed.NewAgent(ctx, bed.AgentOptions{
		Name:    nodeName,
		Kubelet: fmt.Sprintf("authentication: {x509: {clientCAFile: %q}}\n", r.cluster.CA()),
		Proxy:   cluster.OwnServices("nftables"),
		Args:    []string{"--kubeconfig", file},
	})
	if err != nil {
		return err
	}
	fmt.Println("starting nodeagent")
	if err := r.agent.Start(ctx); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"wait", "--for=create", "node/" + nodeName, "--timeout=60s"},
		{"wait", "--for=condition=Ready", "node/" + nodeName, "--timeout=60s"},
	} {
		if _, err := r.cluster.Kubectl(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// tell writes a kubectl for people and says how to look at the cluster.
func (r *running) tell() error {
	kubectl := filepath.Join(r.data, "kubectl")
	if err := os.WriteFile(kubectl, []byte(script(r.bed, r.cluster)), 0o755); err != nil {
		return err
	}
	node := filepath.Join(r.data, nodeName)
	fmt.Printf(`
the cluster is up; from another terminal, as root:
  %s get pods -A -o wide
  %s run web --image=localhost/nodeagent/shell:v1 --command -- sleep 100000
it goes into the cluster's network namespace and runs %s with %s
the node's own view: bin/nodeagent pods --config %s; its log is %s

`, kubectl, kubectl, r.cluster.Command().Path, filepath.Join(r.data, "cluster", filepath.Base(r.cluster.Admin())),
		filepath.Join(node, "config.yaml"), filepath.Join(node, "agent.log"))
	return nil
}

// script is kubectl inside the bed's network namespace, with files as outside.
func script(b *bed.Bed, c *cluster.Cluster) string {
	cmd := c.Command()
	var env []string
	for _, e := range cmd.Env {
		for _, name := range []string{"HOME=", "KUBECONFIG="} {
			if strings.HasPrefix(e, name) {
				env = append(env, "'"+e+"'")
			}
		}
	}
	return fmt.Sprintf(`#!/bin/sh
# kubectl of the cluster that "make cluster" runs, in its network namespace.
exec nsenter --net='%s' -- env %s '%s' "$@"
`, b.Netns(), strings.Join(env, " "), cmd.Path)
}

// wait waits for Ctrl-C, or until something ends that should not.
func (r *running) wait(ctx context.Context) error {
	c := r.cluster
	ended := make(chan error, 6)
	for name, p := range map[string]*bed.Process{
		"etcd": c.Etcd.Process, "kube-apiserver": c.APIServer.Process, "kube-controller-manager": c.ControllerManager.Process,
		"kube-scheduler": c.Scheduler.Process, "nodeagent": r.agent.Process, "CoreDNS": r.dns.Process,
	} {
		go func() {
			select {
			case <-p.Exited():
				ended <- fmt.Errorf("%s has ended: %v\n%s", name, p.Err(), p.LogTail(30))
			case <-ctx.Done():
			}
		}()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return err
	}
}

// logs are the ends of all logs.
func (r *running) logs() string {
	var all []string
	if r.cluster != nil {
		all = append(all, r.cluster.Logs(15))
	}
	if r.agent != nil {
		all = append(all, r.agent.LogTail(40))
	}
	return strings.Join(all, "\n")
}
