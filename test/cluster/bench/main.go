// Command bench is "make bench-cluster": kubelet and the daemon in turn as the only
// node of one control plane, on one containerd and one machine, and one table of
// what each took and what ours is of kubelet's.
//
// How the rows are measured:
//   - ready, gone: when a watcher of the API server sees it; the clock starts before
//     the request. Pods are bound to the node as they are made, so that no scheduler
//     is measured, and have the token of their account, as usual.
//   - many: as fast as eight clients can ask.
//   - CPU: /proc/PID/task/*/schedstat; memory: /proc/PID/smaps_rollup; of the agent's
//     process alone.
//   - requests: distinct audit IDs of the node's user, but those about the Node and
//     its lease, over all pods of a turn.
//   - by stage: the time stamps of containerd's events, of the API server's audit log,
//     of a watcher of the API server and of one of the daemon's own socket, each a
//     witness from outside, and so the same for both.
//
// A row is a median over all turns. It exits 1 when a row is over its limit. A busy
// machine spoils both sides; the ratio says more than the times.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"k8s.io/client-go/rest"

	"nodeagent/test/bed"
	"nodeagent/test/cluster"
	"nodeagent/test/measure"
)

func main() {
	var o options
	flag.IntVar(&o.turns, "turns", 2, "turns of each agent")
	flag.IntVar(&o.single, "n", 12, "pods one after another in a turn")
	flag.IntVar(&o.ending, "ending", 5, "pods that end by themselves in a turn")
	flag.IntVar(&o.many, "many", 100, "pods at once")
	flag.DurationVar(&o.rest, "rest", 30*time.Second, "how long to look at the resting node")
	flag.BoolVar(&o.alone, "alone", false, "the daemon alone, to see where its time goes: no table")
	flag.Parse()
	o.turns, o.single, o.ending, o.many = max(o.turns, 1), max(o.single, 1), max(o.ending, 1), max(o.many, 1)
	measure.Main("bench-cluster", func(ctx context.Context) (bool, error) { return run(ctx, o) })
}

type options struct {
	turns, single, ending, many int
	rest                        time.Duration
	alone                       bool
}

// bench is one run.
type bench struct {
	options
	bed     *bed.Bed
	cluster *cluster.Cluster
	core    *rest.RESTClient
	ctd     *containerd.Client
	seen    *measure.Recorder
	pods    *watcher
	audit   string // file
	turn    int
	sides   []*side // ours and kubelet's
}

func run(ctx context.Context, o options) (over bool, err error) {
	// As on a node: what lasts until a reboot, containerd's and the agent's, is on a
	// tmpfs. It is removed last, when nobody writes there any more.
	memory, err := measure.Tmpfs()
	if err != nil {
		return false, err
	}
	lasting, err := os.MkdirTemp(memory, "nodeagent-bench-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(lasting)) }()
	runDir, state := filepath.Join(lasting, "agent"), filepath.Join(lasting, "containerd")
	if err := errors.Join(os.Mkdir(runDir, 0o700), os.Mkdir(state, 0o711)); err != nil {
		return false, err
	}
	// Before the bed, so that nobody waits in it for a build.
	gets := []func(context.Context) error{programs}
	if !o.alone {
		gets = append(gets, peers)
	}
	for _, get := range gets {
		if err := get(ctx); err != nil {
			return false, err
		}
	}
	b, err := bed.Start(ctx, bed.Options{State: state, Private: true, CRI: true, Talk: os.Stderr})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	be := &bench{options: o, bed: b, audit: filepath.Join(b.Dir(), "audit.log")}
	if err := be.up(ctx); err != nil {
		return false, err
	}
	defer be.ctd.Close()
	ours, err := be.daemon(ctx, runDir)
	if err != nil {
		return false, err
	}
	be.sides = []*side{ours, be.kubelet()}
	if err := be.takeTurns(ctx); err != nil {
		return false, err
	}
	fmt.Println()
	if o.alone {
		be.printOurs(os.Stdout)
	} else {
		over = measure.Table(os.Stdout, "KUBELET", be.rows())
	}
	be.printStages(os.Stdout)
	return over, nil
}

func programs(ctx context.Context) error { _, err := cluster.Programs(ctx, os.Stderr); return err }
func peers(ctx context.Context) error    { _, err := cluster.Peers(ctx, os.Stderr); return err }

// up brings everything up but the agents.
func (b *bench) up(ctx context.Context) error {
	if err := b.bed.Import(ctx); err != nil {
		return err
	}
	policy := filepath.Join(b.bed.Dir(), "audit.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		return err
	}
	var err error
	b.cluster, err = cluster.Start(ctx, b.bed, cluster.Options{
		APIServer: []string{"--audit-policy-file=" + policy, "--audit-log-path=" + b.audit}, Talk: os.Stderr,
	})
	if err != nil {
		return err
	}
	if b.core, err = b.cluster.Core(); err != nil {
		return err
	}
	if b.ctd, err = b.bed.Dial(); err != nil {
		return err
	}
	b.seen = measure.Record(ctx, b.ctd, bed.Namespace,
		measure.RecordMade, measure.TaskMade, measure.TaskStarted, measure.TaskEnded, measure.RecordGone)
	b.pods = watch(ctx, b.core)
	return nil
}

// takeTurns lets kubelet and the daemon take turns, each as often as the other and
// as early.
func (b *bench) takeTurns(ctx context.Context) error {
	ours, kubelet := b.sides[0], b.sides[1]
	var order []*side
	for i := range b.turns {
		switch {
		case b.alone:
			order = append(order, ours)
		case i%2 == 0:
			order = append(order, kubelet, ours)
		default:
			order = append(order, ours, kubelet)
		}
	}
	for i, s := range order {
		b.turn = i + 1
		b.say(fmt.Sprintf("turn %d of %d: %s", b.turn, len(order), s.name))
		err := b.take(ctx, s)
		if err == nil && b.turn < len(order) { // the bed's end is the last one's
			err = b.end(ctx, s)
		}
		if err != nil {
			return fmt.Errorf("%s: %w\n%s\n%s", s.name, err, s.tail(), b.cluster.Logs(5))
		}
	}
	return nil
}

func (b *bench) say(s string) { fmt.Fprintln(os.Stderr, "bench-cluster:", s) }

// rows are the table's: medians of all turns, and what ours is of kubelet's.
func (b *bench) rows() []measure.Row {
	var all []measure.Row
	for _, r := range []struct {
		work  string
		at    int
		limit float64
		show  func(float64) string
	}{
		{"a pod made until a watcher sees it Ready", createOne, 0.18, measure.MS},
		{fmt.Sprintf("%d pods at once until all are Ready", b.many), createMany, 0.30, measure.MS},
		{"a pod deleted until a watcher sees it gone", removeOne, 0.08, measure.MS},
		{fmt.Sprintf("%d pods deleted at once until all are gone", b.many), removeMany, 0.28, measure.MS},
		{fmt.Sprintf("CPU at rest with %d pods over %v", b.many, b.rest), restCPU, 0.08, percent},
		{fmt.Sprintf("memory at rest with %d pods (PSS)", b.many), restMemory, 0.40, measure.MB},
		{"requests to the API server of a pod's life", perPod, 1.0, number},
	} {
		ours, peer := b.sides[0].values[r.at], b.sides[1].values[r.at]
		all = append(all, measure.Row{
			Work: r.work, Ours: r.show(measure.Median(ours)), Peer: r.show(measure.Median(peer)),
			Value: measure.Median(ours) / measure.Median(peer), Limit: r.limit, Unit: "×", Note: spread(ours, peer, r.show),
		})
	}
	return all
}

// printOurs prints what the table would hold of a pod's way up and down, so that two
// trees can be compared without kubelet.
func (b *bench) printOurs(w io.Writer) {
	v := b.sides[0].values
	one := func(at int) string { return measure.MS(measure.Median(v[at])) }
	fmt.Fprintf(w, "a pod made until Ready %s, deleted until gone %s; %d at once %s and %s\n",
		one(createOne), one(removeOne), b.many, measure.List(v[createMany], measure.MS), measure.List(v[removeMany], measure.MS))
}

// spread says how far the values of each side lie apart.
func spread(ours, peer []float64, show func(float64) string) string {
	if len(ours) <= 4 {
		return fmt.Sprintf("ours %s, kubelet %s", measure.List(ours, show), measure.List(peer, show))
	}
	ends := func(v []float64) string { return show(slices.Min(v)) + " to " + show(slices.Max(v)) }
	return fmt.Sprintf("medians of %d; ours %s, kubelet %s", len(ours), ends(ours), ends(peer))
}

func percent(x float64) string { return fmt.Sprintf("%.2f %%", 100*x) }
func number(x float64) string  { return fmt.Sprintf("%.1f", x) }
