package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"nodeagent/test/measure"
)

// beside is what a change of ours cost in the legacy flavour of iptables, which swaps
// whole tables, and what the bare program cost in turn with it, in seconds of CPU.
type beside struct{ ours, bare []float64 }

// legacyLimit is how much more than the bare program a change may cost.
const legacyLimit = 1.3

// legacyAfter is how long the work for a change goes on there when it is in force: the
// program frees what it read, and the daemon notes what is there now.
const legacyAfter = 2 * time.Second

const legacyRestore = "iptables-legacy-restore"

// hint tells the daemon which flavour the node's other rules are in.
const hint = "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n"

// bare is one chain, of as many rules as a service has endpoints.
var bare = "*nat\n:BARE - [0:0]\n" + strings.Repeat("-A BARE -p tcp -j DNAT --to-destination 10.0.0.1:80\n", each) + "COMMIT\n"

// legacy lets the daemon serve all services in that flavour, and moves endpoints in
// turn with the bare program.
func (b *bench) legacy(ctx context.Context) (err error) {
	s := b.sides[0]
	b.say(fmt.Sprintf("%d services, legacy flavour: %s", b.services, s.name))
	for _, text := range []string{hint, bare} {
		if _, err := b.feed(ctx, legacyRestore, text, "--noflush"); err != nil {
			return err
		}
	}
	if err := b.begin(ctx, s); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.kill(), b.clear(ctx)) }()
	if _, err := b.served(ctx, b.services); err != nil {
		return err
	}
	if err := b.isLegacy(ctx); err != nil {
		return err
	}
	if err := measure.Pause(ctx, settle); err != nil {
		return err
	}
	var changed []int
	for k := range s.changes {
		i := k * b.services / s.changes
		ends := usual(i)
		changed, ends[0] = append(changed, i), b.spare()
		c := change{func(ctx context.Context) error { return b.setEnds(ctx, i, ends) }, serviceAddress(i), ends[:1]}
		own, err := b.costOfChange(ctx, s, c)
		if err != nil {
			return err
		}
		took, err := b.feed(ctx, legacyRestore, bare, "--noflush", "-w", "5")
		if err != nil {
			return err
		}
		if err := measure.Pause(ctx, legacyAfter); err != nil { // somebody else wrote: the daemon looks what
			return err
		}
		b.beside.ours, b.beside.bare = append(b.beside.ours, own), append(b.beside.bare, took.Seconds())
	}
	b.say(fmt.Sprintf("a change %s; bare %s", measure.MS(measure.Median(b.beside.ours)), measure.MS(measure.Median(b.beside.bare))))
	if err := b.restore(ctx, changed); err != nil {
		return err
	}
	return b.heal(ctx, "legacy")
}

// costOfChange is what a side and its children used for one change until nothing of it
// is left to do.
func (b *bench) costOfChange(ctx context.Context, s *side, c change) (seconds float64, err error) {
	before, err := measure.GroupTime(s.cpu)
	if err != nil {
		return 0, err
	}
	if err := c.ask(ctx); err != nil {
		return 0, err
	}
	if _, err := b.until(ctx, c.at, c.by...); err != nil {
		return 0, err
	}
	if err := measure.Pause(ctx, legacyAfter); err != nil {
		return 0, err
	}
	now, err := measure.GroupTime(s.cpu)
	return (now - before).Seconds(), err
}

// isLegacy makes sure that it is that flavour which serves.
func (b *bench) isLegacy(ctx context.Context) error {
	out, err := b.bed.Run(ctx, "iptables-legacy", "-t", "nat", "-S", "NODEAGENT-SERVICES")
	if err != nil {
		return fmt.Errorf("look for our rules in the legacy flavour: %w\n%s", err, out)
	}
	return nil
}

// feed runs a program in the bed with some input, and returns what it used of
// processors.
func (b *bench) feed(ctx context.Context, program, text string, args ...string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, changeLimit)
	defer cancel()
	path, err := exec.LookPath(program)
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(path, args...)
	var out strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(text), &out, &out
	if err := b.bed.Start(cmd); err != nil {
		return 0, fmt.Errorf("start %s: %w", program, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if err := cmd.Wait(); err != nil {
		return 0, fmt.Errorf("run %s: %w\n%s", program, err, out.String())
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

// row holds a change against the bare program.
func (x beside) row(services int) measure.Row {
	ours, floor := measure.Median(x.ours), measure.Median(x.bare)
	return measure.Row{
		Work: fmt.Sprintf("CPU of an endpoint moved in the legacy flavour, over the bare program, %d services", services),
		Ours: measure.MS(ours), Peer: measure.MS(floor) + " (bare)", Value: ours / floor, Limit: legacyLimit, Unit: "×",
		Note: fmt.Sprintf("%d values each: ours %s, bare %s", len(x.ours), ends(x.ours, measure.MS), ends(x.bare, measure.MS)),
	}
}
