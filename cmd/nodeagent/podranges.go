package main

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

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
	told chan []netip.Prefix // holds one
}

// The file of the ranges: their texts, with commas between.
const (
	rangesName    = "podCIDRs"
	rangesVersion = 1
)

// learn reads what an earlier daemon was told.
func (r *podRanges) learn(d *daemon) (err error) {
	r.d, r.told = d, make(chan []netip.Prefix, 1)
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
	for {
		select {
		case <-ctx.Done():
			return nil
		case all := <-r.told:
			r.take(all)
		}
	}
}

func (r *podRanges) take(all []netip.Prefix) {
	log := r.d.log
	switch {
	case len(r.d.cfg.CIDRs()) > 0 || slices.Equal(all, r.kept):
		return
	case len(r.kept) > 0:
		log.Error("the Node has other ranges of pod addresses than before; pods keep the old ones until they and the kept file are removed and the daemon is restarted",
			"podCIDRs", all, "before", r.kept, "file", filepath.Join(r.d.cfg.Agent.StateDir, "node", rangesName))
		return
	}
	var texts []string
	for _, p := range all {
		texts = append(texts, p.String())
	}
	if err := r.dir.Save(rangesName, rangesVersion, []byte(joined(texts))); err != nil {
		log.Error("cannot keep the node's ranges of pod addresses", "err", err)
		return
	}
	if r.d.network.Ready() == nil {
		return // plugins see to the addresses
	}
	// Nothing runs yet that has an address, and what is made of the ranges is made
	// at the start of the daemon.
	log.Info("begin anew with the node's ranges of pod addresses", "podCIDRs", texts)
	server.Tell(log, server.Reloading())
	r.d.reload.end(server.ErrReload)
}

// cidrs are the ranges of pods' addresses.
func (d *daemon) cidrs() []netip.Prefix {
	if all := d.cfg.CIDRs(); len(all) > 0 || d.cluster == nil {
		return all
	}
	return d.cluster.ranges.kept
}
