package iptables

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
)

// Watch calls wake when somebody else changes our rules, or may have, until ctx
// ends or the kernel's news are lost. wake must not block; a Sync mends.
//
// In the nft flavour the kernel tells. In the legacy flavour it does not: its
// counts of rules, which cost microseconds, are compared twice a second, and our
// rules themselves when the counts differ, when somebody else had the lock of the
// programs, and every ten seconds.
func (b *Backend) Watch(ctx context.Context, wake func()) error {
	defer b.listens(false)
	lost := func() {
		b.listens(true)
		wake()
	}
	tools, err := b.choose(ctx)
	if err == nil && tools[0].flavour == NFT {
		err = b.own.Others(ctx, unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES, b.hears(wake), lost)
	} else if err == nil {
		err = b.left.watch(ctx, tools, lost)
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("watch iptables: %w", err)
	}
	return nil
}

// listens notes whether somebody listens; what changed before is not known then.
func (b *Backend) listens(yes bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.watched, b.changed, b.unsure = yes, true, true
}

// note takes down where somebody else wrote.
func (b *Backend) note(m netlink.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed = true
	if b.unsure {
		return
	}
	p, known := spotOf(m)
	known = known && (own(b.cfg.Prefix, p.chain) || slices.Contains(kernels, p.chain)) && len(b.spots) < maxNamed
	if !known {
		b.unsure = true
		return
	}
	if b.spots == nil {
		b.spots = map[spot]bool{}
	}
	b.spots[p] = true
}

// hears takes the kernel's messages, and wakes at the end of a transaction: before it
// only a part of what was changed is known.
func (b *Backend) hears(wake func()) func(netlink.Message) {
	told := false
	return func(m netlink.Message) {
		switch {
		case b.concerns(m):
			b.note(m)
			told = true
		case told && isEnd(m):
			told = false
			wake()
		}
	}
}

// isEnd tells the last message of a transaction.
func isEnd(m netlink.Message) bool {
	return uint16(m.Header.Type) == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN
}

// heardNothing tells whether it is known that the kernel holds the table: what woke us
// was seen by the Sync before.
func (b *Backend) heardNothing(t *net.Table) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.known && b.edition == t.Edition() && b.tools[0].flavour == NFT && b.watched && !b.changed
}

// settle is before a look at everything.
func (b *Backend) settle() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed, b.unsure, b.spots = false, false, nil
}

// undisturbed tells whether our rules are those that we left, as far as it can be
// known without a look at everything.
func (b *Backend) undisturbed(ctx context.Context, tools []tool) bool {
	moved := tools[0].flavour == Legacy && (b.left.moved(tools, true) || b.left.changedAfter(ctx, tools))
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.watched && !b.changed && !moved
}

// heard tells whether somebody else changed rules of ours, and nobody looked since.
func (b *Backend) heard() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

// concerns tells whether a message is about a chain of ours, or a rule in one or
// to one, and not of our making: all of these have the chain's name within. A
// program's socket has the number of its process.
func (b *Backend) concerns(m netlink.Message) bool {
	return uint16(m.Header.Type)>>8 == unix.NFNL_SUBSYS_NFTABLES &&
		bytes.Contains(m.Data, []byte(b.cfg.Prefix+"-")) && !b.isChild(int(m.Header.PID))
}

// start starts a program that writes. Until its number is noted nobody asks for
// it.
func (b *Backend) start(c *exec.Cmd) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := c.Start(); err != nil {
		return err
	}
	b.child(c.Process.Pid) // it has begun, and is far from writing
	return nil
}

// maxChildren are known as ours: news of what an earlier one did may come later.
const maxChildren = 64

// child notes a program that writes: as the latest, whenever that is.
func (b *Backend) child(pid int) {
	b.own.Add(uint32(pid))
	b.children = append(slices.DeleteFunc(b.children, func(p int) bool { return p == pid }), pid)
	b.children = b.children[max(0, len(b.children)-maxChildren):]
}

func (b *Backend) isChild(pid int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Contains(b.children, pid)
}

// send writes one batch of patches. For the legacy flavour it notes what we wrote,
// by which Watch tells our changes from those of others; and what others did since
// it looked last, where that would be taken for ours.
func (b *Backend) send(ctx context.Context, x tool, ps []patch, text []byte) error {
	if x.flavour == NFT {
		if done, err := b.feeds[x.f.v6].write(ctx, x, text); done {
			return err
		}
		return x.write(ctx, text, b.start)
	}
	b.left.begin(x)
	err := x.write(ctx, text, b.start)
	b.left.end(x, ps)
	return err
}
