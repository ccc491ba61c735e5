package cluster

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nodeagent/test/bed"
)

// Addresses of the cluster; the node's is the bed's.
const (
	ServiceCIDR = "10.96.0.0/12"
	PodCIDR     = "10.244.0.0/16"
	Domain      = "cluster.local"
	apiPort     = "6443"
)

// Options say how a cluster differs from the usual one. The zero value is the
// usual.
type Options struct {
	APIServer         []string // more flags of kube-apiserver
	ControllerManager []string // more flags of kube-controller-manager
	Scheduler         []string // more flags of kube-scheduler
	// Talk is told what takes long; default: nobody.
	Talk io.Writer
}

// Cluster is a control plane in a bed.
type Cluster struct {
	Etcd, APIServer, ControllerManager, Scheduler *Component
	// Took is how long it took to come up, with all programs built, and Stages
	// how much of it each part, so that a regression has an address.
	Took   time.Duration
	Stages []Stage

	opts  Options
	bed   *bed.Bed
	tools string
	dir   string
	ca    *authority
	http  *http.Client

	tokenID, tokenSecret string

	mu         sync.Mutex
	components map[string]*Component // by name, once it is known how to start them
}

// Stage is a part of the way up.
type Stage struct {
	Name string
	Took time.Duration
}

// Up makes a cluster for a test in a bed, which is also its end. When the test
// has failed, the ends of all logs are shown.
func Up(t testing.TB, b *bed.Bed, o Options) *Cluster {
	t.Helper()
	c, err := Start(t.Context(), b, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Logs(30))
		}
	})
	t.Logf("figure: the control plane was up in %.2f s: %s", c.Took.Seconds(), c.stages())
	return c
}

// Start brings a control plane up in a bed, which must have no other, and waits
// until pods can be made in it. Closing the bed is the end of it.
func Start(ctx context.Context, b *bed.Bed, o Options) (*Cluster, error) {
	tools, err := Programs(ctx, o.Talk)
	if err != nil {
		return nil, err
	}
	c := &Cluster{opts: o, bed: b, tools: tools, dir: filepath.Join(b.Dir(), "cluster"), components: map[string]*Component{}}
	start := time.Now()
	if err := c.stage("keys", c.make); err != nil {
		return nil, fmt.Errorf("make the cluster's keys: %w", err)
	}
	if err := c.startAll(ctx); err != nil {
		return nil, err
	}
	if err := c.stage("objects", func() error { return c.populate(ctx) }); err != nil {
		return nil, fmt.Errorf("set the cluster up: %w\n%s", err, c.Logs(30))
	}
	c.Took = time.Since(start)
	return c, nil
}

// stage does a part of the way up and remembers how long it took.
func (c *Cluster) stage(name string, do func() error) error {
	start := time.Now()
	err := do()
	c.Stages = append(c.Stages, Stage{name, time.Since(start)})
	return err
}

func (c *Cluster) stages() string {
	var all []string
	for _, s := range c.Stages {
		all = append(all, fmt.Sprintf("%s %.2f", s.Name, s.Took.Seconds()))
	}
	return strings.Join(all, ", ")
}

func (c *Cluster) pki() string { return filepath.Join(c.dir, "pki") }

// logs are apart from kubeconfigs, as on a node: an agent watches the directory of its
// own, and would be woken by each line.
func (c *Cluster) logs() string { return filepath.Join(c.dir, "logs") }

// Server is the URL of the API server, which answers inside the bed only.
func (c *Cluster) Server() string { return "https://" + bed.NodeIP + ":" + apiPort }

// Logs are the last n lines of each program's log.
func (c *Cluster) Logs(n int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for _, name := range slices.Sorted(maps.Keys(c.components)) {
		if p := c.components[name]; p.Process != nil {
			all = append(all, p.LogTail(n))
		}
	}
	return strings.Join(all, "\n")
}

// Tool is the path of a program of the control plane's set.
func (c *Cluster) Tool(name string) string { return filepath.Join(c.tools, name) }
