package nftables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"nodeagent/internal/net"
)

// state is what the kernel holds of our table.
type state struct {
	whole    bool              // the fixed part is as it shall be
	chains   map[string][]rule // chains that pick endpoints; of rules, text and kinds of expressions
	sets     map[string]held
	elements elements
}

// read looks at everything.
func (b *Backend) read(c *nftables.Conn) (state, error) {
	s, err := b.readShape(c)
	if err != nil || !s.whole {
		return s, err
	}
	for name, set := range b.sets {
		if set.Dynamic {
			continue // clients' business
		}
		if err := b.readSet(c, set, s.elements); errors.Is(err, unix.ENOENT) {
			s.whole = false
			return s, nil
		} else if err != nil {
			return s, fmt.Errorf("read set %s: %w", name, err)
		}
	}
	return s, nil
}

// readShape looks at everything but elements.
func (b *Backend) readShape(c *nftables.Conn) (state, error) {
	s := state{chains: map[string][]rule{}, elements: elements{}}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return s, fmt.Errorf("list chains: %w", err)
	}
	got := map[string]*nftables.Chain{}
	for _, ch := range chains {
		if ch.Table.Name != b.table.Name {
			continue
		}
		got[ch.Name] = ch
		if !isPick(ch.Name) {
			continue
		}
		if s.chains[ch.Name], err = b.readRules(c, ch.Name); err != nil {
			return s, err
		}
	}
	if len(got) == 0 {
		return s, nil // no table, or none of ours
	}
	if s.whole, err = b.readFixed(c, got); err != nil || !s.whole {
		return s, err
	}
	if asleep, err := b.asleep(c); err != nil || asleep {
		s.whole = false
		return s, err
	}
	if s.sets, err = b.listSets(); err != nil {
		return s, err
	}
	for name, set := range b.sets {
		if h, ok := s.sets[name]; !ok || h.dynamic != set.Dynamic {
			s.whole = false
		}
	}
	return s, nil
}

// asleep tells whether somebody put the table to sleep: no packet comes to it then.
// The library reads the flags in the order of the machine's bytes.
func (b *Backend) asleep(c *nftables.Conn) (bool, error) {
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool {
		return t.Name == b.table.Name && binary.BigEndian.Uint32(native(t.Flags))&unix.NFT_TABLE_F_DORMANT != 0
	}), nil
}

// readFixed compares the fixed chains with what they shall be.
func (b *Backend) readFixed(c *nftables.Conn, got map[string]*nftables.Chain) (bool, error) {
	for _, want := range b.fixed() {
		ch := got[want.name]
		if ch == nil || !sameHook(ch, want) {
			return false, nil
		}
		rules, err := b.readRules(c, want.name)
		if err != nil || !alike(rules, want.rules) {
			return false, err
		}
		delete(got, want.name)
	}
	for name := range got {
		if !isPick(name) {
			return false, nil
		}
	}
	return true, nil
}

// sameHook compares what makes a chain one that packets come to by themselves, and
// what becomes of those that no rule takes.
func sameHook(is *nftables.Chain, want chain) bool {
	if is.Hooknum == nil || want.hook == nil {
		return is.Hooknum == nil && want.hook == nil
	}
	return *is.Hooknum == *want.hook && is.Priority != nil && int32(*is.Priority) == want.prio && is.Type == want.kind &&
		is.Policy != nil && *is.Policy == nftables.ChainPolicyAccept
}

func (b *Backend) readRules(c *nftables.Conn, name string) ([]rule, error) {
	rules, err := c.GetRules(b.table, &nftables.Chain{Name: name, Table: b.table})
	if err != nil {
		return nil, fmt.Errorf("list rules of chain %s: %w", name, err)
	}
	var out []rule
	for _, r := range rules {
		text, _ := userdata.GetString(r.UserData, userdata.TypeComment)
		out = append(out, rule{text, r.Exprs})
	}
	return out, nil
}

func (b *Backend) readSet(c *nftables.Conn, set *nftables.Set, into elements) error {
	els, err := c.GetSetElements(set)
	if err != nil {
		return err
	}
	for _, e := range els {
		x := content{value: string(e.Val), comment: e.Comment}
		if set.DataType == nftables.TypeVerdict {
			x.value = ""
			if x.verdict, err = verdictOf(e.Val); err != nil {
				return err
			}
		}
		into[slot{set.Name, string(e.Key), string(e.KeyEnd)}] = x
	}
	return nil
}

// verdictOf reads the verdict of an element, which the library leaves as it is.
func verdictOf(b []byte) (string, error) {
	a, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return "", fmt.Errorf("read verdict: %w", err)
	}
	a.ByteOrder = binary.BigEndian
	code, name := int32(0), ""
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_VERDICT_CODE:
			code = int32(a.Uint32())
		case unix.NFTA_VERDICT_CHAIN:
			name = strings.TrimRight(string(a.Bytes()), "\x00")
		}
	}
	switch {
	case a.Err() != nil:
		return "", fmt.Errorf("read verdict: %w", a.Err())
	case code == unix.NFT_GOTO:
		return name, nil
	case code == 0: // NF_DROP
		return "drop", nil
	}
	return fmt.Sprintf("verdict %d %s", code, name), nil
}

// orders is in which order the kernel has endpoints, by the set, the key and
// the first number.
type orders map[string][]netip.AddrPort

func orderKey(set, key string, first uint32) string { return set + key + mark(first) }

// ordersOf finds them.
func ordersOf(els elements) orders {
	out := orders{}
	for s, c := range els {
		if !isEndpoints(s.set) || len(s.key) < 4 || len(c.value) < 8 {
			continue
		}
		at, port := len(s.key)-4, len(c.value)-4
		n := binary.NativeEndian.Uint32([]byte(s.key[at:]))
		i := n &^ localFirst
		if n < anyFirst || i > 1<<20 {
			continue // a name, or nobody's
		}
		key := orderKey(s.set, s.key[:at], n&localFirst)
		list := out[key]
		for uint32(len(list)) <= i {
			list = append(list, netip.AddrPort{})
		}
		ip, _ := netip.AddrFromSlice([]byte(c.value[:port]))
		list[i] = netip.AddrPortFrom(ip, binary.BigEndian.Uint16([]byte(c.value[port:])))
		out[key] = list
	}
	return out
}

func isEndpoints(set string) bool {
	base := set[:len(set)-1]
	return base == endpoints || base == nodePortEnds
}

// of returns the order of an entry's endpoints: all its addresses have the same.
func (o orders) of(e *net.Entry) shape {
	f := famOf(e.Addr.IP)
	s := shape{o[orderKey(f.name(endpoints), addressPort(e.Addr), anyFirst)], o[orderKey(f.name(endpoints), addressPort(e.Addr), localFirst)]}
	for _, x := range e.Fronts {
		set, key := f.name(endpoints), addressPort(x.Address)
		if x.Kind == net.NodePort {
			set, key = f.name(nodePortEnds), protoPort(x.Address)
		}
		if s.cluster == nil {
			s.cluster = o[orderKey(set, key, anyFirst)]
		}
		if s.local == nil {
			s.local = o[orderKey(set, key, localFirst)]
		}
	}
	return s
}
