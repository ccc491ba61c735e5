package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	apinode "nodeagent/internal/node"
)

// kubernetesRelease is the release of Kubernetes that the node says it is of,
// whatever the libraries' level.
const kubernetesRelease = "v1.36.3"

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }

func joined(all []string) string { return strings.Join(all, ",") }

// settleLimit is how long the Node waits for the runtime and the network to be
// looked at for the first time.
const settleLimit = 10 * time.Second

// afterAdoption begins when it is known how the node does: a daemon that starts
// anew must not say for a moment that pods cannot run.
func (d *daemon) afterAdoption(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		limit := time.NewTimer(settleLimit)
		defer limit.Stop()
		for _, known := range []<-chan struct{}{d.runtime.Synced(), d.network.Loaded()} {
			select {
			case <-ctx.Done():
				return nil
			case <-known:
			case <-limit.C:
				return run(ctx)
			}
		}
		return run(ctx)
	}
}

// conditions judges the node by what pods need. Pressure is nobody's yet.
type conditions struct{ d *daemon }

// Conditions implements apinode.Conditions.
func (c conditions) Conditions() apinode.Verdicts {
	v := apinode.Verdicts{Judged: true}
	if err := c.d.runtime.Healthy(); err != nil {
		v.NotReady = append(v.NotReady, fmt.Errorf("container runtime is down: %w", err))
	}
	if c.d.shuttingDown() {
		v.NotReady = append(v.NotReady, errShuttingDown)
	}
	if err := c.d.network.Ready(); err != nil {
		v.NotReady = append(v.NotReady, fmt.Errorf("container runtime network not ready: %w", err))
	}
	if ahead, known := c.d.cluster.nodes.Skew(); known {
		v.Others = append(v.Others, apinode.ClockSkew(ahead))
	}
	return v
}

// nodeChanged takes what the API server says of the Node. It does not block.
func (d *daemon) nodeChanged(n *corev1.Node) {
	c := d.cluster
	if n != nil {
		c.once.Do(func() { close(c.known) })
	}
	c.writer.NodeChanged()
}

// healthChanged has the node say at once that the runtime or the network came or
// went.
func (d *daemon) healthChanged() {
	if d.cluster != nil {
		d.cluster.node.Wake()
	}
}

// imagesChanged has the node look at its images again.
func (d *daemon) imagesChanged() {
	if d.cluster != nil {
		d.cluster.facts.look()
	}
}

// nodeFacts is what the node is, in memory.
type nodeFacts struct {
	d    *daemon
	poke chan struct{} // holds one

	mu    sync.Mutex
	facts apinode.Facts
}

// learn finds what does not change.
func (f *nodeFacts) learn(d *daemon) {
	f.d, f.poke = d, make(chan struct{}, 1)
	c := d.cluster
	f.facts = apinode.Facts{Machine: c.machine, Capacity: c.capacity, Allocatable: c.allocatable(),
		Features: &corev1.NodeFeatures{SupplementalGroupsPolicy: new(true)}, Declared: declared()}
	for _, name := range f.names() {
		f.facts.Handlers = append(f.facts.Handlers, corev1.NodeRuntimeHandler{Name: name})
	}
}

// declared is what this node can of that by which the scheduler and the API server
// choose (component-helpers' nodedeclaredfeatures), sorted. With ExtendWebSocketsToKubelet
// the API server leaves WebSockets of the fifth version, and tunnels of SPDY, to the node;
// else it translates them itself.
func declared() []string {
	return []string{"ExtendWebSocketsToKubelet", "RestartAllContainersOnContainerExits"}
}

// names are those of the ways to run containers; "" is the default one.
func (f *nodeFacts) names() []string { return append([]string{""}, f.d.cfg.Handlers()...) }

// handlers finds what each way to run containers can.
func (f *nodeFacts) handlers(ctx context.Context) (all []corev1.NodeRuntimeHandler) {
	for _, name := range f.names() {
		all = append(all, corev1.NodeRuntimeHandler{Name: name, Features: &corev1.NodeRuntimeHandlerFeatures{
			RecursiveReadOnlyMounts: new(f.d.runtime.RecursiveReadOnly(ctx, name)), UserNamespaces: new(false),
		}})
	}
	return all
}

func (f *nodeFacts) now() apinode.Facts {
	f.mu.Lock()
	defer f.mu.Unlock()
	facts := f.facts
	facts.Addresses = f.d.addrs.ofNode()
	return facts
}

// look has the runtime and the images looked at. It never blocks.
func (f *nodeFacts) look() {
	select {
	case f.poke <- struct{}{}:
	default:
	}
}

// lookLimit bounds one look; lookAgain is when one that failed is tried again.
const (
	lookLimit = 30 * time.Second
	lookAgain = 10 * time.Second
)

// follow keeps the runtime's version, what it can, and the images true, until ctx ends.
func (f *nodeFacts) follow(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.poke:
		case <-timer.C:
		}
		if err := f.ask(ctx); err != nil && ctx.Err() == nil {
			f.d.log.Debug("the node's images are not known", "err", err)
			timer.Reset(lookAgain)
		}
	}
}

func (f *nodeFacts) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	about, err := f.d.runtime.About(ctx)
	if err != nil {
		return err
	}
	list, err := f.d.runtime.Images().List(ctx)
	if err != nil {
		return err
	}
	all := make([]apinode.Image, 0, len(list))
	for _, img := range list {
		names := slices.Concat(img.RepoDigests, img.RepoTags)
		same := func(i apinode.Image) bool { return slices.Equal(i.Names, names) } // List gives one a name
		if len(names) > 0 && !slices.ContainsFunc(all, same) {
			all = append(all, apinode.Image{Names: names, Size: img.Size})
		}
	}
	handlers := f.handlers(ctx)
	f.mu.Lock()
	f.facts.Handlers = handlers
	f.facts.RuntimeVersion, f.facts.Images = strings.TrimPrefix(about.Version, "v"), all
	f.mu.Unlock()
	f.d.cluster.node.Wake()
	return nil
}

// errNoNode is that of a Node that the API server does not have.
var errNoNode = errors.New("the node is not registered")

// freshNode reads the Node as it is at this moment.
func (c *cluster) freshNode(ctx context.Context) (*corev1.Node, error) {
	n, _, err := c.nodes.Nodes().List(ctx, c.name)
	if err == nil && n == nil {
		err = errNoNode
	}
	return n, err
}
