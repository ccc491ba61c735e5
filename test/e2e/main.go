// Command e2e is "make e2e": the public end-to-end suite of Kubernetes against a
// node of a real control plane in a bed. It builds the suite, makes the images that
// it asks for, brings control plane, node and CoreDNS up, runs the tests that -focus
// names, and prints which passed, which failed and why. With -agent kubelet the node is
// kubelet's, so that a failure can be told to be ours, or the bed's; with
// -proxy kube-proxy the rules of services are kube-proxy's, as they always are beside
// kubelet.
//
// It exits 1 when a test failed. Everything that it started ends with it; the
// suite's own output and its report stay in -out.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"nodeagent/test/bed"
	"nodeagent/test/cluster"
)

func main() {
	var o options
	flag.StringVar(&o.focus, "focus", `\[NodeConformance\]`, "run the tests whose names match `regexp`")
	flag.StringVar(&o.skip, "skip", "", "but not those that match `regexp`")
	flag.StringVar(&o.agent, "agent", "nodeagent", "whose node it is: nodeagent or `kubelet`")
	flag.StringVar(&o.proxy, "proxy", "", "whose rules of services it has: nodeagent's or `kube-proxy`'s; default: nodeagent, or kube-proxy beside kubelet")
	flag.StringVar(&o.out, "out", "bin/e2e", "keep the suite's output and report in `dir`")
	flag.IntVar(&o.procs, "procs", 4, "run as many tests at once")
	flag.DurationVar(&o.limit, "limit", 2*time.Hour, "give up after `time`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	failed, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	}
	if failed || err != nil {
		os.Exit(1)
	}
}

type options struct {
	focus, skip, agent, proxy, out string
	procs                          int
	limit                          time.Duration
}

// whose decides whose the node and the rules of services are.
func (o *options) whose() error {
	if o.agent != "nodeagent" && o.agent != "kubelet" {
		return fmt.Errorf("-agent is %q, want nodeagent or kubelet", o.agent)
	}
	if o.proxy == "" {
		o.proxy = map[string]string{"nodeagent": "nodeagent", "kubelet": "kube-proxy"}[o.agent]
	}
	switch {
	case o.proxy != "nodeagent" && o.proxy != "kube-proxy":
		return fmt.Errorf("-proxy is %q, want nodeagent or kube-proxy", o.proxy)
	case o.proxy == "nodeagent" && o.agent == "kubelet":
		return errors.New("kubelet has no rules of services: beside it they are kube-proxy's")
	}
	return nil
}

// run returns whether a test failed.
func run(ctx context.Context, o options) (failed bool, err error) {
	if os.Geteuid() != 0 {
		return false, errors.New("namespaces, cgroups and mounts need root: sudo make e2e")
	}
	if err := o.whose(); err != nil {
		return false, err
	}
	if o.out, err = filepath.Abs(o.out); err != nil {
		return false, err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return false, err
	}
	tools, err := cluster.Suite(ctx, os.Stdout)
	if err != nil {
		return false, err
	}
	images, err := makeImages(ctx, tools)
	if err != nil {
		return false, fmt.Errorf("make the suite's images: %w", err)
	}
	certs, err := os.MkdirTemp("", "e2e-certs.d-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(certs)
	b, err := bed.Start(ctx, bedOptions(o.agent, certs))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	n, err := bringUp(ctx, b, o, certs, images)
	if err != nil {
		return false, err
	}
	defer n.keepLogs(o.out)
	r, err := n.suite(ctx, tools, o)
	if err != nil {
		return false, err
	}
	r.print(os.Stdout)
	return len(r.failed()) > 0, nil
}
