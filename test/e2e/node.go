package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"nodeagent/test/bed"
	"nodeagent/test/cluster"
	"nodeagent/test/image"
)

// node is what the suite runs against.
type node struct {
	*cluster.Cluster
	bed   *bed.Bed
	agent string // its log
	root  string // --root-dir of the agent
}

const nodeName = "node"

// bedOptions are a bed for our daemon, or for kubelet, which needs CRI and has paths
// that no flag moves.
func bedOptions(agent, certs string) bed.Options {
	if agent == "kubelet" {
		return bed.Options{Stock: true, Private: true, CRI: true, Talk: os.Stdout, Containerd: fmt.Sprintf(
			"[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = %q\n", certs)}
	}
	return bed.Options{Talk: os.Stdout}
}

// bringUp makes everything that the suite takes for given: the images, a control
// plane, a node that is Ready, addresses of services and names in the DNS.
func bringUp(ctx context.Context, b *bed.Bed, o options, certs string, images []image.Spec) (*node, error) {
	begun := time.Now()
	if err := load(ctx, b, images); err != nil {
		return nil, err
	}
	if err := serveImages(b, certs); err != nil {
		return nil, fmt.Errorf("serve the images: %w", err)
	}
	fmt.Printf("images in place after %.1f s\n", time.Since(begun).Seconds())
	c, err := cluster.Start(ctx, b, cluster.Options{Talk: os.Stdout})
	if err != nil {
		return nil, err
	}
	n := &node{Cluster: c, bed: b}
	if err := n.startAgent(ctx, o, certs); err != nil {
		return nil, err
	}
	for _, condition := range []string{"--for=create", "--for=condition=Ready"} {
		if _, err := c.Kubectl(ctx, "wait", condition, "node/"+nodeName, "--timeout=60s"); err != nil {
			return nil, err
		}
	}
	if o.proxy == "kube-proxy" {
		if _, err := c.KubeProxy(ctx, nodeName, ""); err != nil {
			return nil, err
		}
	}
	if _, err := c.CoreDNS(ctx); err != nil {
		return nil, err
	}
	fmt.Printf("a cluster with a node of %s and rules of services of %s after %.1f s\n", o.agent, o.proxy, time.Since(begun).Seconds())
	return n, nil
}

func (n *node) startAgent(ctx context.Context, o options, certs string) error {
	if o.agent == "kubelet" {
		p, err := n.Kubelet(ctx, nodeName)
		if err != nil {
			return err
		}
		n.agent, n.root = p.Log(), filepath.Join(filepath.Dir(p.Log()), "kubelet", "root")
		return nil
	}
	kubeconfig, err := n.Node(nodeName)
	if err != nil {
		return err
	}
	services := ""
	if o.proxy == "nodeagent" {
		services = cluster.OwnServices("nftables")
	}
	a, err := n.bed.NewAgent(ctx, bed.AgentOptions{
		Name:      nodeName,
		Kubelet:   fmt.Sprintf("authentication: {x509: {clientCAFile: %q}}\n", n.CA()),
		NodeAgent: fmt.Sprintf("registryConfigDir: %q\n", certs),
		Proxy:     services,
		NoCIDRs:   true, // those of the Node, as a cluster's node has them
		Args:      []string{"--kubeconfig", kubeconfig},
	})
	if err != nil {
		return err
	}
	n.agent, n.root = a.Log(), a.RootDir()
	return a.Start(ctx)
}

// load puts the images into the bed's containerd, those of the bed first: one of
// them is that of CRI's sandboxes.
func load(ctx context.Context, b *bed.Bed, images []image.Spec) error {
	if err := b.Import(ctx); err != nil {
		return err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(image.Write(w, images...)) }()
	defer r.Close() // which ends the writer, too
	return b.Load(ctx, r)
}

// serveImages has the registries whose images the suite pulls anew, although they
// are there, answered inside the bed out of its own containerd.
func serveImages(b *bed.Bed, certs string) error {
	client, err := b.Dial() // open as long as the process
	if err != nil {
		return err
	}
	var l net.Listener
	if err := b.Do(func() (err error) { l, err = net.Listen("tcp4", "127.0.0.1:0"); return err }); err != nil {
		return err
	}
	serve(l, client)
	for _, registry := range registries {
		dir := filepath.Join(certs, registry)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		text := fmt.Sprintf("[host.\"http://%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", l.Addr())
		if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// keepLogs copies what a person wants to read who looks for a reason.
func (n *node) keepLogs(out string) {
	for from, to := range map[string]string{n.agent: "agent.log", n.bed.ContainerdLog(): "containerd.log", n.APIServer.Log(): "kube-apiserver.log"} {
		if err := copyFile(from, filepath.Join(out, to)); err != nil {
			fmt.Fprintln(os.Stderr, "e2e: keep a log:", err)
		}
	}
}

func copyFile(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}
