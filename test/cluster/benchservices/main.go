// Command benchservices is "make bench-services": kube-proxy and the daemon in turn as
// the only program that serves the services of one control plane, in one network
// namespace on one machine, and one table of what each took.
//
// How the rows are measured:
//   - every endpoint is an address of the namespace itself, and one server answers at
//     all of them with the address that was called: so each connection is a real one,
//     and who answers is known.
//   - until it is answered: the clock starts when the API server has answered that the
//     change is made (below the table: when it was asked to); then a connection is begun
//     each millisecond, and the first that is answered by whom it should be is the end.
//     Changes come one at a time, with a pause that is longer
//     than kube-proxy's own least time between two batches.
//   - CPU: cpu.stat of a cgroup in which the program and its children are alone, from
//     before the request until a fifth of a second after the answer; the median of the
//     changes, as of the latencies: now and then a side does something else meanwhile, and
//     so does the machine.
//   - programmed: what the program itself says its first batch took
//     (kubeproxy_sync_full_proxy_rules_duration_seconds), for only it knows when it had
//     read everything.
//   - at rest: the mean of the program's CPU while nobody changes anything, in as long a
//     time as a change's was looked at. It is in no median above but by chance, and it is
//     not taken off.
//   - memory: /proc/PID/smaps_rollup, at rest after all of that; of the whole daemon,
//     which is also the node.
//   - a bare program (mode iptables): CPU of "iptables-nft-restore --noflush" of one chain
//     of five rules, which nothing leads to, beside each side's rules; and beside rules of
//     which each endpoint has one and no service any, which is what the kernel's walk of
//     them costs at least.
//   - legacy flavour (mode iptables, ours alone): CPU of one change and, in turn with
//     it, of a bare "iptables-legacy-restore --noflush" of one chain in the same tables.
//   - until served again (mode iptables, ours alone, both flavours): from before a
//     program changes our rules until twenty services are answered.
//   - over a direct connection: connect(2) alone, to services all over the range and to
//     their endpoints, in turn.
//
// A row is a median over all turns of a side with the most services. -only is
// for one side alone. It exits 1 when a row is over its limit. A busy machine spoils both sides; the ratio says more than the
// times.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"k8s.io/client-go/rest"

	"nodeagent/test/bed"
	"nodeagent/test/cluster"
	"nodeagent/test/measure"
)

func main() {
	var o options
	flag.StringVar(&o.mode, "mode", "nftables", "mode of both: nftables or iptables")
	flag.IntVar(&o.services, "services", 10_000, "services, of 5 endpoints each; the growth to that is shown, too")
	flag.IntVar(&o.turns, "turns", 1, "turns of each side with all services")
	flag.IntVar(&o.changes, "changes", 15, "changes of a kind in a turn of ours")
	flag.IntVar(&o.peerChanges, "peer-changes", 5, "changes of a kind in a turn of kube-proxy's")
	flag.StringVar(&o.only, "only", "", "nodeagent or kube-proxy, in half the time; ours is without a ratio then, and kube-proxy without a table of limits")
	flag.IntVar(&o.calls, "calls", 2000, "connections in a turn, by each way")
	flag.Parse()
	o.services, o.turns, o.changes, o.peerChanges, o.calls = min(max(o.services, 100), 10_000), max(o.turns, 1), max(o.changes, 1), max(o.peerChanges, 1), max(o.calls, 1)
	measure.Main("bench-services", func(ctx context.Context) (bool, error) { return run(ctx, o) })
}

type options struct {
	mode                                         string
	services, turns, changes, peerChanges, calls int
	only                                         string // the name of a side; "": both
}

// sizes are the numbers of services that both sides are looked at with.
func (o options) sizes() []int {
	var all []int
	for _, n := range []int{100, 1000} {
		if n < o.services {
			all = append(all, n)
		}
	}
	return append(all, o.services)
}

// bench is one run.
type bench struct {
	options
	goals           goals
	bed             *bed.Bed
	cluster         *cluster.Cluster
	core, discovery *rest.RESTClient
	there           int     // services that there are
	serial          int     // names and addresses that were used once
	sides           []*side // ours and kube-proxy's
	beside          beside  // mode iptables: the legacy flavour
	healed          []healed
}

func run(ctx context.Context, o options) (over bool, err error) {
	limits, ok := limits[o.mode]
	switch {
	case !ok:
		return false, fmt.Errorf("mode %q is neither nftables nor iptables", o.mode)
	case !slices.Contains([]string{"", oursName, peerName}, o.only):
		return false, fmt.Errorf("-only %q is neither %s nor %s", o.only, oursName, peerName)
	}
	// As on a node: what lasts until a reboot is on a tmpfs. It is removed last.
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
	if o.only != oursName {
		gets = append(gets, peers)
	}
	for _, get := range gets {
		if err := get(ctx); err != nil {
			return false, err
		}
	}
	b, err := bed.Start(ctx, bed.Options{State: state, Talk: os.Stderr})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	be := &bench{options: o, goals: limits, bed: b}
	if err := be.up(ctx, runDir); err != nil {
		return false, err
	}
	for _, n := range o.sizes() {
		if err := be.grow(ctx, n); err != nil {
			return false, err
		}
		if err := be.takeTurns(ctx, n); err != nil {
			return false, err
		}
	}
	if o.mode == "iptables" && o.only != peerName {
		if err := errors.Join(be.least(ctx, be.sides[0]), be.clear(ctx)); err != nil {
			return false, err
		}
		if err := be.legacy(ctx); err != nil {
			return false, fmt.Errorf("legacy flavour with %d services: %w\n%s", o.services, err, be.sides[0].tail())
		}
	}
	fmt.Println()
	if o.only != peerName {
		over = measure.Table(os.Stdout, "KUBE-PROXY", be.rows())
		fmt.Println()
	}
	be.printGrowth(os.Stdout)
	return over, nil
}

func programs(ctx context.Context) error { _, err := cluster.Programs(ctx, os.Stderr); return err }
func peers(ctx context.Context) error    { _, err := cluster.Peers(ctx, os.Stderr); return err }

// up brings everything up but the two sides.
func (b *bench) up(ctx context.Context, runDir string) error {
	var err error
	if b.cluster, err = cluster.Start(ctx, b.bed, cluster.Options{Talk: os.Stderr}); err != nil {
		return err
	}
	if b.core, err = b.cluster.Core(); err != nil {
		return err
	}
	if b.discovery, err = b.cluster.Discovery(); err != nil {
		return err
	}
	// Nobody needs them for services without a selector, and ten thousand keep them busy.
	if err := errors.Join(b.cluster.ControllerManager.Kill(), b.cluster.Scheduler.Kill()); err != nil {
		return err
	}
	if err := b.register(ctx); err != nil {
		return err
	}
	if err := b.answer(ctx); err != nil {
		return err
	}
	ours, err := b.daemon(ctx, runDir)
	if err != nil {
		return err
	}
	b.sides = []*side{ours, b.kubeProxy()}
	return nil
}

// takeTurns lets both sides take turns with n services.
func (b *bench) takeTurns(ctx context.Context, n int) error {
	turns := 1
	if n == b.services {
		turns = b.turns
	}
	for i := range turns {
		order := []*side{b.sides[1], b.sides[0]}
		if i%2 == 1 {
			slices.Reverse(order)
		}
		order = slices.DeleteFunc(order, func(s *side) bool { return b.only != "" && s.name != b.only })
		for _, s := range order {
			b.say(fmt.Sprintf("%d services, turn %d of %d: %s", n, i+1, turns, s.name))
			if err := b.take(ctx, s, n); err != nil {
				return fmt.Errorf("%s with %d services: %w\n%s\n%s", s.name, n, err, s.tail(), b.cluster.Logs(5))
			}
		}
	}
	return nil
}

func (b *bench) say(s string) { fmt.Fprintln(os.Stderr, "bench-services:", s) }
