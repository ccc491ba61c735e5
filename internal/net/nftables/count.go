package nftables

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// setCount is NFTA_SET_COUNT: kernels from 6.16 on say how many elements a set has.
const setCount = 20

// held is what the kernel says of a set without its elements.
type held struct {
	dynamic bool
	count   int // -1: it does not say
}

// listSets asks for all sets of the table.
func (b *Backend) listSets() (map[string]held, error) {
	name, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.NFTA_SET_TABLE, Data: []byte(b.table.Name + "\x00")}})
	if err != nil {
		return nil, fmt.Errorf("list sets: %w", err)
	}
	replies, err := b.raw.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSET), Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, name...),
	})
	if err != nil {
		return nil, fmt.Errorf("list sets: %w", err)
	}
	sets := map[string]held{}
	for _, m := range replies {
		if len(m.Data) < 4 {
			continue
		}
		a, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return nil, fmt.Errorf("list sets: %w", err)
		}
		a.ByteOrder = binary.BigEndian
		name, h := "", held{count: -1}
		for a.Next() {
			switch a.Type() {
			case unix.NFTA_SET_NAME:
				name = a.String()
			case unix.NFTA_SET_FLAGS:
				h.dynamic = a.Uint32()&unix.NFT_SET_EVAL != 0
			case setCount:
				h.count = int(a.Uint32())
			}
		}
		if err := a.Err(); err != nil {
			return nil, fmt.Errorf("list sets: %w", err)
		}
		sets[name] = h
	}
	return sets, nil
}

// counted tells whether the kernel says of each set that it has as many elements as
// there are of it in els. One that does not count says of none.
func counted(sets map[string]held, els elements) bool {
	n := map[string]int{}
	for s := range els {
		n[s.set]++
	}
	for name, h := range sets {
		if !h.dynamic && h.count != n[name] {
			return false
		}
	}
	return true
}
