package main

import (
	"context"
	"fmt"
	"time"

	"nodeagent/test/measure"
)

// healed is how long services were not served after somebody else changed our rules.
type healed struct {
	flavour, what string
	took          float64 // seconds
}

// healLimit is how long it may take, seconds.
const healLimit = 3

// damages are what somebody else does, the one that takes longest to mend last: after
// it the daemon rests.
var damages = []struct {
	what string
	args []string
}{
	{"a rule deleted", []string{"-D", "OUTPUT", "-m", "comment", "--comment", "nodeagent: service addresses", "-j", "NODEAGENT-SERVICES"}},
	{"a rule replaced by one of its length", []string{"-R", "NODEAGENT-SERVICES", "1", "-j", "RETURN"}},
	{"all rules flushed", []string{"-F"}},
}

// heal damages our rules, and waits until services all over the range are answered
// again.
func (b *bench) heal(ctx context.Context, flavour string) error {
	for _, d := range damages {
		if err := measure.Pause(ctx, settle); err != nil {
			return err
		}
		begun := time.Now()
		if out, err := b.bed.Run(ctx, append([]string{"iptables-" + flavour, "-t", "nat"}, d.args...)...); err != nil {
			return fmt.Errorf("damage our rules: %w\n%s", err, out)
		}
		last, err := b.served(ctx, b.services)
		if err != nil {
			return fmt.Errorf("%s: %w", d.what, err)
		}
		h := healed{flavour, d.what, last.Sub(begun).Seconds()}
		b.healed = append(b.healed, h)
		b.say(fmt.Sprintf("%s flavour, %s: served again after %s", h.flavour, h.what, measure.MS(h.took)))
	}
	return nil
}

// row is a figure of ours alone.
func (h healed) row(services int) measure.Row {
	return measure.Row{
		Work: fmt.Sprintf("%s by somebody else until served again, %s flavour, %d services", h.what, h.flavour, services),
		Ours: measure.MS(h.took), Value: h.took, Limit: healLimit, Unit: "s",
	}
}
