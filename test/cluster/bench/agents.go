package main

import (
	"context"
	"fmt"
	"time"

	"nodeagent/test/bed"
	"nodeagent/test/cluster"
	"nodeagent/test/measure"
)

// nodeName is that of either agent: its turn ends with the Node.
const nodeName = "node"

// What is measured in a turn.
const (
	createOne = iota
	createMany
	removeOne
	removeMany
	restCPU
	restMemory
	perPod
	valueCount
)

// side is one of the two agents, with what was measured of it.
type side struct {
	name  string
	start func(context.Context) error
	pid   func() int
	kill  func() error
	tail  func() string
	// link is the interface that it leaves, which the other's would be at odds with.
	link string
	// told watches what the agent itself says of its pods; nil: nobody can ask it.
	told func(context.Context) *watcher

	values [valueCount][]float64
	lives  [lifeCount][]life
	kinds  map[string]int // requests of its last turn, by what was asked
}

// daemon is ours. It has what the API server needs to get at it, as any node.
func (b *bench) daemon(ctx context.Context, runDir string) (*side, error) {
	file, err := b.cluster.Node(nodeName)
	if err != nil {
		return nil, err
	}
	a, err := b.bed.NewAgent(ctx, bed.AgentOptions{
		Name: nodeName, RunDir: runDir,
		Kubelet: fmt.Sprintf("authentication: {x509: {clientCAFile: %q}}\n", b.cluster.CA()),
		Args:    []string{"--kubeconfig", file},
	})
	if err != nil {
		return nil, err
	}
	return &side{
		name: "nodeagent", start: a.Start, kill: a.Kill, link: "nodeagent0",
		pid:  func() int { return a.Pid },
		tail: func() string { return a.LogTail(40) },
		told: func(ctx context.Context) *watcher { return watchAgent(ctx, a) },
	}, nil
}

// kubelet makes its files with its first start.
func (b *bench) kubelet() *side {
	k := cluster.NewPeer(func(ctx context.Context) (*cluster.Component, error) { return b.cluster.Kubelet(ctx, nodeName) })
	return &side{
		name: "kubelet", link: "cni0", start: k.Start, pid: k.Pid, kill: k.Kill,
		tail: func() string { return k.LogTail(20) },
	}
}

// settle is how long an agent is left alone before it counts as at rest, and before
// its events count as told.
const settle = 8 * time.Second

// take is an agent's turn: it is the node.
func (b *bench) take(ctx context.Context, s *side) error {
	begun := time.Now()
	if err := s.start(ctx); err != nil {
		return err
	}
	if err := b.registered(ctx); err != nil {
		return err
	}
	for _, step := range []func(context.Context, *side) error{b.oneByOne, b.byThemselves, b.atOnce} {
		if err := step(ctx, s); err != nil {
			return err
		}
	}
	return b.requests(ctx, s, begun)
}

// registered waits until the Node is Ready and takes pods.
func (b *bench) registered(ctx context.Context) error {
	for _, args := range [][]string{
		{"wait", "--for=create", "node/" + nodeName, "--timeout=60s"},
		{"wait", "--for=condition=Ready", "node/" + nodeName, "--timeout=120s"},
	} {
		if _, err := b.cluster.Kubectl(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// end waits until nothing of a pod is left, and takes the agent away with what is
// left of its turn. kubelet removes the records of sandboxes by the minute.
func (b *bench) end(ctx context.Context, s *side) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	b.seen.Reset()
	left, err := b.ctd.ContainerService().List(ctx)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		b.say(fmt.Sprintf("%s still has %d records in containerd; waiting until they are gone", s.name, len(left)))
	}
	if _, err := b.seen.Wait(ctx, measure.RecordGone, len(left)); err != nil {
		return err
	}
	if err := s.kill(); err != nil {
		return err
	}
	if _, err := b.cluster.Kubectl(ctx, "delete", "node", nodeName, "--timeout=60s"); err != nil {
		return err
	}
	for _, argv := range [][]string{{"ip", "link", "del", s.link}, {"nft", "flush", "ruleset"}} {
		if _, err := b.bed.Run(ctx, argv...); err != nil {
			return err
		}
	}
	return nil
}
