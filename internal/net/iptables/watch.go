package iptables

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net/news"
)

// Watch calls wake when somebody else changes our rules, or may have, until ctx
// ends or the kernel's news are lost. wake must not block; a Sync mends.
//
// In the nft flavour the kernel tells. In the legacy flavour it does not: its
// counts of rules, which cost microseconds, are compared every second, and our
// rules themselves when the counts differ, and every two seconds, or where that is
// much work every ten.
func (b *Backend) Watch(ctx context.Context, wake func()) error {
	defer b.listens(false)
	told := func() {
		b.listens(true)
		wake()
	}
	tools, err := b.choose(ctx)
	if err == nil && tools[0].flavour == NFT {
		err = news.Listen(ctx, unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES, func(m netlink.Message) {
			if b.concerns(m) {
				told()
			}
		}, told)
	} else if err == nil {
		err = b.watchLegacy(ctx, tools, told)
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
	b.watched, b.changed = yes, true
}

// settle is before a look at everything.
func (b *Backend) settle() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed = false
}

// undisturbed tells whether our rules are those that we left, as far as it can be
// known without a look at everything.
func (b *Backend) undisturbed(tools []tool) bool {
	moved := tools[0].flavour == Legacy && b.moved(tools, true)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.watched && !b.changed && !moved
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
	b.children[b.next] = c.Process.Pid
	b.next = (b.next + 1) % len(b.children)
	return nil
}

func (b *Backend) isChild(pid int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Contains(b.children[:], pid)
}

// send writes one batch. For the legacy flavour it notes what is there after it,
// by which Watch tells our changes from those of others; and what others did
// since it looked last, which would be taken for ours.
func (b *Backend) send(ctx context.Context, x tool, text []byte) error {
	if x.flavour == NFT {
		return x.write(ctx, text, b.start)
	}
	b.mu.Lock()
	b.missed = b.differs(x, false) || b.missed
	b.writing++
	b.mu.Unlock()
	err := x.write(ctx, text, b.start)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.writing--
	b.note(x)
	return err
}

// key is a table of a family.
type key struct {
	v6    bool
	table string
}

// How often the legacy tables are looked at: at the counts; and in looks at these at
// the rules, which is for who replaced one by another of its length.
const (
	countEvery = time.Second
	readSoon   = 2
	readLate   = 10
	readShare  = 100 // a look at the rules may take so much of the time until the next
)

// untilRead is after how many looks at the counts the rules are to be read again, which
// took so long.
func untilRead(took time.Duration) int {
	return min(max(int(readShare*took/countEvery), readSoon), readLate)
}

func (b *Backend) watchLegacy(ctx context.Context, tools []tool, wake func()) error {
	b.mu.Lock()
	b.marks = map[key]mark{}
	for _, x := range tools {
		b.note(x)
	}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.marks = nil
	}()
	wake() // what changed before
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	for left := readSoon; ; left-- {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		begun, all := time.Now(), left <= 1
		if b.moved(tools, all) {
			wake()
		}
		if all {
			left = untilRead(time.Since(begun)) + 1
		}
	}
}

// moved tells whether our rules are others than those that we left.
func (b *Backend) moved(tools []tool, all bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.writing > 0 {
		return false // what that leaves is noted when it ends
	}
	out := b.missed
	b.missed = false
	for _, x := range tools {
		out = b.differs(x, all) || out
	}
	return out
}

// differs looks at the counts, and where these differ, or if all, at the rules.
func (b *Backend) differs(x tool, all bool) bool {
	out := false
	for _, table := range tables {
		k := key{x.f.v6, table}
		was, watched := b.marks[k]
		if !watched {
			continue
		}
		if now, err := countsOf(x.f, table); !all && err == nil && now == was.counts {
			continue
		}
		now := b.markOf(x.f, table)
		out = out || now.digest != was.digest
		b.marks[k] = now
	}
	return out
}

// note takes what is there for what shall be, if anybody watches.
func (b *Backend) note(x tool) {
	for _, table := range tables {
		if b.marks != nil {
			b.marks[key{x.f.v6, table}] = b.markOf(x.f, table)
		}
	}
}
