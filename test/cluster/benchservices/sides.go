package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"nodeagent/test/bed"
	"nodeagent/test/cluster"
	"nodeagent/test/measure"
)

// nodeName is that of the node for which either side works.
const nodeName = "node"

// The sides' names.
const (
	oursName = "nodeagent"
	peerName = "kube-proxy"
)

// side is one of the two programs, with what was measured of it.
type side struct {
	name    string
	changes int // of a kind in a turn
	start   func(context.Context) error
	pid     func() int
	kill    func() error
	tail    func() string
	cpu     string          // the file that counts what it uses
	values  map[int]*values // by number of services
}

func (s *side) of(n int) *values {
	if s.values[n] == nil {
		s.values[n] = &values{}
	}
	return s.values[n]
}

// daemon is ours, whole: it is the node, too.
func (b *bench) daemon(ctx context.Context, runDir string) (*side, error) {
	file, err := b.cluster.Node(nodeName)
	if err != nil {
		return nil, err
	}
	a, err := b.bed.NewAgent(ctx, bed.AgentOptions{
		Name: nodeName, RunDir: runDir,
		Kubelet: fmt.Sprintf("authentication: {x509: {clientCAFile: %q}}\n", b.cluster.CA()),
		Proxy:   cluster.OwnServices(b.mode),
		Args:    []string{"--kubeconfig", file},
	})
	if err != nil {
		return nil, err
	}
	return &side{
		name: oursName, changes: b.changes, values: map[int]*values{}, start: a.Start, kill: a.Kill,
		pid:  func() int { return a.Pid },
		tail: func() string { return a.LogTail(40) },
	}, nil
}

// kubeProxy makes its files with its first start.
func (b *bench) kubeProxy() *side {
	p := cluster.NewPeer(func(ctx context.Context) (*cluster.Component, error) {
		return b.cluster.KubeProxy(ctx, nodeName, b.mode)
	})
	return &side{
		name: peerName, changes: b.peerChanges, values: map[int]*values{},
		start: p.Start, pid: p.Pid, kill: p.Kill, tail: func() string { return p.LogTail(20) },
	}
}

const (
	// startLimit bounds how long a side may take until all services are answered.
	startLimit = 15 * time.Minute
	// changeLimit bounds how long a change may take.
	changeLimit = 2 * time.Minute
	// settle is how long a side is left alone before what it does counts.
	settle = 8 * time.Second
	// atRest is how long a side is looked at that has nothing to do: two of the node's
	// heartbeats.
	atRest = 20 * time.Second
	// apart is the time between two changes: kube-proxy writes once a second at most.
	apart = 1200 * time.Millisecond
	// after is how long the work for a change goes on when it is in force.
	after = 200 * time.Millisecond
)

// begin starts a side, by itself where what it and its children use is counted.
func (b *bench) begin(ctx context.Context, s *side) error {
	if err := s.start(ctx); err != nil {
		return err
	}
	cpu, err := b.bed.Apart(s.pid())
	s.cpu = cpu
	if err != nil {
		return errors.Join(err, s.kill())
	}
	return nil
}

// take is a side's turn: it serves n services.
func (b *bench) take(ctx context.Context, s *side, n int) (err error) {
	v := s.of(n)
	begun := time.Now()
	if err := b.begin(ctx, s); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.kill(), b.clear(ctx)) }()
	last, err := b.served(ctx, n)
	if err != nil {
		return err
	}
	v.add(answering, last.Sub(begun).Seconds())
	if err := measure.Pause(ctx, settle); err != nil {
		return err
	}
	first, err := b.figure(ctx, "sync_full_proxy_rules_duration_seconds_sum")
	if err != nil {
		return err
	}
	v.add(programmed, first)
	for _, step := range []func(context.Context, *side, *values, int) error{b.create, b.move, b.more, b.atOnce, b.connections, b.inTheSame} {
		if err := step(ctx, s, v, n); err != nil {
			return err
		}
	}
	if b.mode == "iptables" && s == b.sides[0] && n == b.services {
		if err := b.heal(ctx, "nft"); err != nil {
			return err
		}
	}
	if err := measure.Pause(ctx, settle); err != nil {
		return err
	}
	share, _, err := measure.Share(ctx, s.pid(), atRest)
	if err != nil {
		return err
	}
	v.add(resting, share*v.median(window))
	pss, err := measure.Rollup(s.pid(), "Pss")
	if err != nil {
		return err
	}
	v.add(memory, float64(pss))
	b.say(fmt.Sprintf("created %s, moved %s, CPU %s %s %s, programmed %s, %s, +%s", measure.MS(v.median(createdLatency)), measure.MS(v.median(movedLatency)),
		measure.MS(v.median(createdCPU)), measure.MS(v.median(movedCPU)), measure.MS(v.median(cameCPU)), measure.MS(v.median(programmed)),
		measure.MB(v.median(memory)), micro(v.median(extra))))
	return nil
}

// clear takes all rules away, whoever made them.
func (b *bench) clear(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeLimit)
	defer cancel()
	out, err := b.bed.Run(ctx, "nft", "flush", "ruleset")
	if err != nil {
		fmt.Fprint(os.Stderr, out)
	}
	if b.mode == "iptables" {
		for _, family := range []string{"", "6"} {
			_, more := b.feed(ctx, "ip"+family+"tables-legacy-restore", "*nat\nCOMMIT\n*filter\nCOMMIT\n*mangle\nCOMMIT\n")
			err = errors.Join(err, more)
		}
	}
	return err
}
