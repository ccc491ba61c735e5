package main

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"nodeagent/internal/durable"
	"nodeagent/internal/server"
)

// podRanges keeps the ranges of pods' addresses that the cluster gave this node: the
// bridge needs them before anybody can be asked, and pods that run have addresses
// from them. A range in the configuration comes first.
type podRanges struct {
	d    *daemon
	dir  *durable.Dir
	kept []netip.Prefix      // as an earlier daemon was told
	left []netip.Prefix      // for which the kept ones were retired
	told chan []netip.Prefix // holds one
	free chan struct{}       // holds one: nobody may have an address of the kept ones any more
}

// The file of the ranges: their texts, with commas between.
const (
	rangesName    = "podCIDRs"
	rangesVersion = 1
)

// learn reads what an earlier daemon was told.
func (r *podRanges) learn(d *daemon) (err error) {
	r.d, r.told, r.free = d, make(chan []netip.Prefix, 1), make(chan struct{}, 1)
	if r.dir, err = durable.New(durable.Config{Path: filepath.Join(d.cfg.Agent.StateDir, "node")}); err != nil {
		return err
	}
	_, err = r.dir.Load(rangesName, func(version uint32, payload []byte) (err error) {
		if version != rangesVersion {
			return fmt.Errorf("version %d of the pod ranges is not known", version)
		}
		r.kept, err = parseRanges(string(payload))
		return err
	})
	return err
}

func parseRanges(text string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for part := range strings.SplitSeq(text, ",") {
		p, err := netip.ParsePrefix(part)
		if err != nil {
			return nil, fmt.Errorf("parse pod ranges: %w", err)
		}
		all = append(all, p)
	}
	return all, nil
}

// tell takes the ranges of the Node. It never blocks.
func (r *podRanges) tell(all []netip.Prefix) {
	select {
	case <-r.told:
	default:
	}
	r.told <- all // only the goroutine that writes the Node tells
}

// run takes what the Node says into use, until ctx ends.
func (r *podRanges) run(ctx context.Context) error {
	if _, err := r.dir.Prepare(); err != nil {
		r.d.log.Warn("the pod ranges are not kept over a restart", "err", err)
	}
	again := time.NewTimer(0)
	again.Stop()
	var next []netip.Prefix // as the Node has it
	for {
		select {
		case <-ctx.Done():
			return nil
		case next = <-r.told:
			again.Stop()
		case <-r.free:
		case <-again.C:
		}
		if err := r.take(next); err != nil {
			r.d.log.Error("cannot keep the node's ranges of pod addresses", "err", err, "again", keepAgain)
			again.Reset(keepAgain)
		}
	}
}

// keepAgain is when ranges that could not be kept are kept once more.
const keepAgain = 10 * time.Second

// take makes the ranges of the Node those of this daemon, or of the next one.
func (r *podRanges) take(all []netip.Prefix) error {
	network := r.d.network
	switch {
	case len(all) == 0 || len(r.d.cfg.CIDRs()) > 0:
		return nil
	case slices.Equal(all, r.kept):
		r.left = nil
		network.Retire(nil, nil) // it may have had others for a while
		return nil
	case len(r.kept) == 0:
		if err := r.keep(all); err != nil || network.Ready() == nil {
			return err // plugins see to the addresses
		}
	default:
		if !slices.Equal(all, r.left) || !network.Vacant() {
			r.leave(all)
			return nil
		}
		if err := r.keep(all); err != nil {
			return err
		}
	}
	// Nobody has an address yet, or any more, and what is made of the ranges is made
	// at the start of the daemon.
	r.d.log.Info("begin anew with the node's ranges of pod addresses", "podCIDRs", all)
	server.Tell(r.d.log, server.Reloading())
	r.d.reload.end(server.ErrReload)
	return nil
}

// leave has nobody get an address of the kept ranges any more: they may be another
// node's by now, since the control plane gives away what a deleted Node had.
func (r *podRanges) leave(all []netip.Prefix) {
	if slices.Equal(all, r.left) {
		return
	}
	r.left = all
	r.d.log.Warn("the Node has other ranges of pod addresses than before; no pod begins until those that have an address of the old ones are gone",
		"podCIDRs", all, "before", r.kept)
	r.d.network.Retire(all, fmt.Errorf("the Node has the pod ranges %v, and pods that run have addresses of %v: no pod begins until these are gone", all, r.kept))
}

// keep writes the ranges down for the daemon that follows.
func (r *podRanges) keep(all []netip.Prefix) error {
	var texts []string
	for _, p := range all {
		texts = append(texts, p.String())
	}
	return r.dir.Save(rangesName, rangesVersion, []byte(joined(texts)))
}

// rangesVacated has the ranges of the Node looked at again. It does not block.
func (d *daemon) rangesVacated() {
	if d.cluster == nil {
		return
	}
	select {
	case d.cluster.ranges.free <- struct{}{}:
	default:
	}
}

// cidrs are the ranges of pods' addresses.
func (d *daemon) cidrs() []netip.Prefix {
	if all := d.cfg.CIDRs(); len(all) > 0 || d.cluster == nil {
		return all
	}
	return d.cluster.ranges.kept
}
