package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"nodeagent/internal/net"
)

// maxFaults is how many parts that the kernel refuses are looked into side by side, and
// so about how many services are found at fault in one go. The next go finds others.
const maxFaults = 16

// narrowing is a search for the services whose rules the kernel refuses, among changes.
type narrowing struct {
	p     *Proxy
	table *net.Table // what the kernel holds
	took  int        // groups that the kernel took
	fault map[net.Key]error
}

// narrow makes the changes of a diff in parts, until only those are left that the
// kernel refuses, and takes their services out of the model.
func (p *Proxy) narrow(ctx context.Context, d *net.Diff, full bool) error {
	select {
	case <-p.wakes: // everything is compared after a refusal
	default:
	}
	n := &narrowing{p: p, table: p.model.Table().Clone(), fault: map[net.Key]error{}}
	changes := d.Entries
	if full {
		var err error
		if changes, err = n.step(ctx); err != nil {
			return err
		}
	} else {
		n.table.Change(reversed(changes))
	}
	groups := linked(changes)
	err := n.search(ctx, groups)
	if err != nil && !errors.Is(err, errMany) {
		return err
	}
	if n.took == 0 && len(groups) > 1 {
		return fmt.Errorf("the kernel refuses the rules of each service: %w", first(n.fault))
	}
	if err == nil { // the last word: the kernel holds the table without them
		if err := n.apply(ctx, nil); err != nil {
			return fmt.Errorf("the kernel refuses rules, and not because of a service: %w", err)
		}
	}
	for k, why := range n.fault {
		p.model.LeaveOut(k, why.Error())
	}
	p.owed = owing(n.table, p.model.Table())
	return err
}

// step goes back to what the kernel took last, and returns what is more than that. Where
// nothing was taken yet, or that is refused now, everything is.
func (n *narrowing) step(ctx context.Context) ([]net.Change, error) {
	want := n.table
	if n.table = n.p.owed.before(want); n.table != nil && len(n.table.Entries) > 0 {
		switch err := n.apply(ctx, nil); {
		case err == nil:
			n.took++
			return between(n.table, want), nil
		case !net.IsRefused(err):
			return nil, err
		}
	}
	n.table = want.Clone()
	n.table.Change(reversed(between(&net.Table{}, want)))
	return between(n.table, want), nil
}

var errMany = fmt.Errorf("the kernel refuses the rules of more than %d services", maxFaults)

func first(errs map[net.Key]error) error {
	for _, err := range errs {
		return err
	}
	return errors.New("there is none")
}

func reversed(changes []net.Change) []net.Change {
	out := make([]net.Change, len(changes))
	for i, c := range changes {
		out[i] = net.Change{Old: c.New, New: c.Old}
	}
	return out
}

// search makes the changes of groups. Of what the kernel refuses it tries the halves,
// both before the halves of either: so half of all services are served after two steps,
// and all but a quarter after four, wherever the ones at fault are.
func (n *narrowing) search(ctx context.Context, groups [][]net.Change) error {
	many := false
	for open := [][][]net.Change{groups}; len(open) > 0; {
		var refused [][][]net.Change
		for _, part := range open {
			err := n.try(ctx, part)
			switch {
			case net.IsRefused(err):
				refused = append(refused, part)
			case err != nil:
				return err
			}
		}
		if left := max(maxFaults-len(n.fault), 0); len(refused) > left {
			if many = true; n.took == 0 { // does it take anything at all?
				left = min(left, 1)
			}
			refused = refused[:left]
		}
		open = open[:0]
		for _, part := range refused {
			half := len(part) / 2
			open = append(open, part[:half], part[half:])
		}
	}
	if many {
		return errMany
	}
	return nil
}

// try makes the changes of groups, or none; a single group that is refused is blamed.
func (n *narrowing) try(ctx context.Context, groups [][]net.Change) error {
	if len(groups) == 0 || ctx.Err() != nil {
		return ctx.Err()
	}
	all := slices.Concat(groups...)
	err := n.apply(ctx, all)
	switch {
	case err == nil:
		n.took += len(groups)
		return nil
	case !net.IsRefused(err):
		return err
	case len(n.p.wakes) > 0:
		return fmt.Errorf("somebody else changes the rules meanwhile: %v", err) // which is no refusal to look into
	case len(groups) == 1:
		if err := n.blame(ctx, all, err); err != nil {
			return fmt.Errorf("leave a service out: %v", err) // nor is this
		}
		return nil
	}
	return err
}

// apply has the kernel hold the table with changes, or leaves both as they were.
func (n *narrowing) apply(ctx context.Context, changes []net.Change) error {
	d := n.table.Change(changes)
	err := n.p.bounded(ctx, func(ctx context.Context) error { return n.p.backend.Apply(ctx, n.table, &d) })
	if err != nil {
		n.table.Change(reversed(changes))
	}
	return err
}

// blame leaves services out: rules of theirs from before go, too, since they lead
// to what was.
func (n *narrowing) blame(ctx context.Context, changes []net.Change, why error) error {
	if again := n.apply(ctx, changes); !net.IsRefused(again) {
		if again == nil {
			n.took++
		}
		return again // it was the moment, after all
	}
	var gone []net.Change
	for _, c := range changes {
		for _, e := range []*net.Entry{c.Old, c.New} {
			if e != nil {
				n.fault[e.Service] = why
			}
		}
	}
	for _, e := range n.table.Sorted() {
		if n.fault[e.Service] != nil {
			gone = append(gone, net.Change{Old: e})
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return n.apply(ctx, gone)
}

// linked divides changes into groups that can be made one without the other: those
// of one service, and of services of which one gets an address of another.
func linked(changes []net.Change) [][]net.Change {
	of := map[net.Key]net.Key{} // to another one of the group, or itself
	var root func(net.Key) net.Key
	root = func(k net.Key) net.Key {
		up, ok := of[k]
		if !ok || up == k {
			return k
		}
		r := root(up)
		of[k] = r
		return r
	}
	owner := map[net.Address]net.Key{}
	claim := func(a net.Address, k net.Key) {
		if o, ok := owner[a]; ok {
			of[root(k)] = root(o)
		}
		owner[a] = k
	}
	for _, c := range changes {
		for _, e := range []*net.Entry{c.Old, c.New} {
			if e == nil {
				continue
			}
			claim(e.Addr, e.Service)
			for _, f := range e.Fronts {
				claim(f.Address, e.Service)
			}
		}
	}
	at := map[net.Key]int{}
	var out [][]net.Change
	for _, c := range changes {
		e := c.New
		if e == nil {
			e = c.Old
		}
		r := root(e.Service)
		i, ok := at[r]
		if !ok {
			i = len(out)
			at[r] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], c)
	}
	return out
}
