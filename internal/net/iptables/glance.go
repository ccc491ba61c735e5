package iptables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// After somebody flushed a table, its chains stay: to have iptables-save ask for the
// rules of each takes a second with ten thousand services, though there are none. What
// the kernel tells of the chains alone says so at once.

// netChain is a chain as the kernel tells of it.
type netChain struct {
	table, name string
	use         uint32 // its rules, and the rules that lead to it
}

const glanceTime = 5 * time.Second

// glance is what iptables-save would say of our chains in a table of the nft flavour,
// where all of them are empty and nothing leads to one; false: somebody has to look.
func (b *Backend) glance(ctx context.Context, x tool, table string) (seen, bool) {
	all, err := chainsOf(ctx, x.f)
	if err != nil {
		return seen{}, false
	}
	out := seen{chains: map[string]sum{}}
	for _, c := range all {
		if c.table != table || !b.ours(c.name) {
			continue
		}
		if c.use > 0 {
			return seen{}, false
		}
		out.chains[c.name] = sum{}
	}
	return out, true
}

// chainsOf asks the kernel for all chains of a family.
func chainsOf(ctx context.Context, f fam) ([]netChain, error) {
	family := byte(unix.AF_INET)
	if f.v6 {
		family = unix.AF_INET6
	}
	ms, err := askNftables(ctx, unix.NFT_MSG_GETCHAIN, netlink.Dump, family)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	out := make([]netChain, 0, len(ms))
	for _, m := range ms {
		n, err := parseChain(m.Data)
		if err != nil {
			return nil, fmt.Errorf("list chains: %w", err)
		}
		out = append(out, n)
	}
	return out, nil
}

// askNftables puts one question to the kernel.
func askNftables(ctx context.Context, what uint16, how netlink.HeaderFlags, family byte) ([]netlink.Message, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	until := time.Now().Add(glanceTime)
	if d, ok := ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	if err := c.SetDeadline(until); err != nil {
		return nil, err
	}
	return c.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | what), Flags: netlink.Request | how},
		Data:   []byte{family, unix.NFNETLINK_V0, 0, 0},
	})
}

// generation is the number of the ruleset, which each transaction raises by one.
func generation(ctx context.Context) (uint32, error) {
	ms, err := askNftables(ctx, unix.NFT_MSG_GETGEN, 0, unix.AF_UNSPEC)
	if err != nil {
		return 0, fmt.Errorf("ask nftables for its generation: %w", err)
	}
	for _, m := range ms {
		ad, err := netlink.NewAttributeDecoder(m.Data[min(4, len(m.Data)):])
		if err != nil {
			return 0, fmt.Errorf("ask nftables for its generation: %w", err)
		}
		ad.ByteOrder = binary.BigEndian
		for ad.Next() {
			if ad.Type() == unix.NFTA_GEN_ID {
				return ad.Uint32(), ad.Err()
			}
		}
	}
	return 0, errors.New("ask nftables for its generation: the answer has none")
}

func parseChain(b []byte) (netChain, error) {
	var c netChain
	ad, err := netlink.NewAttributeDecoder(b[min(4, len(b)):])
	if err != nil {
		return c, err
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_CHAIN_TABLE:
			c.table = ad.String()
		case unix.NFTA_CHAIN_NAME:
			c.name = ad.String()
		case unix.NFTA_CHAIN_USE:
			if v := ad.Bytes(); len(v) == 4 {
				c.use = binary.BigEndian.Uint32(v)
			}
		}
	}
	return c, ad.Err()
}
