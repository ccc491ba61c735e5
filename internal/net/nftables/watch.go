package nftables

import (
	"context"
	"fmt"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watch calls wake when somebody else changes our table, or may have, until ctx
// ends or the kernel's news are lost. wake must not block; a Sync mends.
func (b *Backend) Watch(ctx context.Context, wake func()) error {
	err := b.own.Others(ctx, unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES, func(m netlink.Message) {
		if b.concerns(m) {
			wake()
		}
	}, wake)
	if err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	return nil
}

// concerns tells whether a message is about our table and not of our making. In
// all kinds of messages the table's name is the first attribute.
func (b *Backend) concerns(m netlink.Message) bool {
	if uint16(m.Header.Type)>>8 != unix.NFNL_SUBSYS_NFTABLES || uint16(m.Header.Type)&0xff == unix.NFT_MSG_NEWGEN ||
		len(m.Data) < 4 {
		return false
	}
	if b.own.Has(m) {
		return false
	}
	a, err := netlink.NewAttributeDecoder(m.Data[4:])
	if err != nil {
		return false
	}
	for a.Next() {
		if a.Type() == unix.NFTA_TABLE_NAME {
			return strings.TrimRight(string(a.Bytes()), "\x00") == b.cfg.Table
		}
	}
	return false
}
