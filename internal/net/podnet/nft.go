package podnet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
)

// nftBackend keeps the rules in one table of the family inet, by netlink. The
// fixed rules cost the same however many pods there are: a published port is
// one element of a map.
//
// It keeps its socket: to close one of this kind makes the kernel wait until
// all that was deleted is really freed, 5 to 20 ms.
type nftBackend struct {
	set ruleSet
	c   *nftables.Conn // nil: not open
	raw *netlink.Conn
}

func probeNft() error {
	c, err := nftConn(time.Now().Add(linkTimeout))
	if err != nil {
		return err
	}
	_, err = c.ListTablesOfFamily(nftables.TableFamilyINet)
	return err
}

// open returns the connection, with its deadline set. Each use ends with end.
func (b *nftBackend) open(ctx context.Context) (*nftables.Conn, error) {
	if b.c == nil {
		c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
			b.raw = c
			return buffers(c)
		}))
		if err != nil {
			return nil, fmt.Errorf("open nftables socket: %w", err)
		}
		b.c = c
	}
	if err := b.raw.SetDeadline(deadlineOf(ctx)); err != nil {
		return nil, fmt.Errorf("bound nftables socket: %w", err)
	}
	return b.c, nil
}

// end gives up the socket after an error, since an answer may still be in it.
func (b *nftBackend) end(err error) error {
	if err != nil {
		b.close()
	}
	return err
}

func (b *nftBackend) close() {
	if b.c != nil {
		_ = b.c.CloseLasting()
		b.c, b.raw = nil, nil
	}
}

// buffers makes room for a batch and for the acknowledgements of its messages.
func buffers(c *netlink.Conn) error {
	return errors.Join(c.SetReadBuffer(1<<20), c.SetWriteBuffer(1<<20))
}

// nftConn is a connection for one call that only reads.
func nftConn(deadline time.Time) (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(buffers(c), c.SetDeadline(deadline))
	}))
}

// chunk is how many elements go into one message: an element takes under 120
// bytes, a message must stay under 32 KiB (the length of an attribute has 16
// bits, and more is lost without an error). chunksPerBatch keeps a batch under
// the send buffer.
const (
	chunk          = 200
	chunksPerBatch = 8
)

func (b *nftBackend) sync(ctx context.Context, want []binding) error {
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	return b.end(b.diff(c, want))
}

// diff reads the kernel once and changes what differs.
func (b *nftBackend) diff(c *nftables.Conn, want []binding) error {
	wanted := b.elements(want)
	have, whole := b.read(c)
	if !whole {
		if err := b.rebuild(c); err != nil {
			return err
		}
		have = map[string]map[string]string{}
	}
	var stale, missing []element
	for _, m := range b.set.maps() {
		for k, v := range have[m.Name] {
			if wanted[m.Name][k] != v {
				stale = append(stale, element{m.Name, k, v})
			}
		}
		for k, v := range wanted[m.Name] {
			if have[m.Name][k] != v {
				missing = append(missing, element{m.Name, k, v})
			}
		}
	}
	if err := b.write(c, stale, c.SetDeleteElements); err != nil {
		return fmt.Errorf("remove stale elements: %w", err)
	}
	if err := b.write(c, missing, c.SetAddElements); err != nil {
		return fmt.Errorf("add missing elements: %w", err)
	}
	if len(stale)+len(missing) == 0 && whole {
		return nil
	}
	// The kernel takes over-long messages in part and says nothing.
	if have, whole = b.read(c); !whole || !maps.EqualFunc(have, wanted, maps.Equal[map[string]string, map[string]string]) {
		return errors.New("read the table back: it does not hold what was written")
	}
	return nil
}

func (b *nftBackend) add(ctx context.Context, bs []binding) error {
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	return b.end(b.write(c, flat(b.elements(bs)), c.SetAddElements))
}

func (b *nftBackend) remove(ctx context.Context, bs []binding) error {
	els := flat(b.elements(bs))
	err := b.removeBatch(ctx, els)
	if !isMissing(err) {
		return err
	}
	// One that is missing failed the whole batch: one by one, then.
	for i := range els {
		if err := b.removeBatch(ctx, els[i:i+1]); err != nil && !isMissing(err) {
			return err
		}
	}
	return nil
}

func (b *nftBackend) removeBatch(ctx context.Context, els []element) error {
	c, err := b.open(ctx)
	if err != nil {
		return err
	}
	return b.end(b.write(c, els, c.SetDeleteElements))
}

// element is one entry of one map, its key and value as the kernel has them.
type element struct{ set, key, value string }

// elements sorts bindings into the maps.
func (b *nftBackend) elements(bs []binding) map[string]map[string]string {
	out := map[string]map[string]string{}
	for _, m := range b.set.maps() {
		out[m.Name] = map[string]string{}
	}
	for _, x := range bs {
		out[mapOf(x)][mapKey(x)] = mapValue(x)
	}
	return out
}

func flat(els map[string]map[string]string) []element {
	var out []element
	for set, m := range els {
		for k, v := range m {
			out = append(out, element{set, k, v})
		}
	}
	return out
}

// write applies op to elements in messages and batches that the kernel takes.
func (b *nftBackend) write(c *nftables.Conn, els []element, op func(*nftables.Set, []nftables.SetElement) error) error {
	by := map[string][]nftables.SetElement{}
	for _, e := range els {
		by[e.set] = append(by[e.set], nftables.SetElement{Key: []byte(e.key), Val: []byte(e.value)})
	}
	queued := 0
	for _, m := range b.set.maps() {
		for part := range slices.Chunk(by[m.Name], chunk) {
			if err := op(m, part); err != nil {
				return err
			}
			if queued++; queued%chunksPerBatch == 0 {
				if err := c.Flush(); err != nil {
					return err
				}
			}
		}
	}
	return c.Flush()
}

// read returns the elements of the maps, and whether the table's fixed part is
// what it shall be: every rule carries a comment with its place and the
// fingerprint of the configuration.
func (b *nftBackend) read(c *nftables.Conn) (have map[string]map[string]string, whole bool) {
	t := b.set.table()
	want := map[string][]fixedRule{}
	for _, r := range b.set.rules() {
		want[r.chain] = append(want[r.chain], r)
	}
	for _, ch := range b.set.chains() {
		got, err := c.GetRules(t, ch)
		if err != nil || len(got) != len(want[ch.Name]) {
			return nil, false
		}
		for i, r := range got {
			// A rule that went through a tool's listing and back keeps its
			// comment, but may have lost what the tool cannot print.
			s, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			if s != b.comment(i) || len(r.Exprs) != len(want[ch.Name][i].exprs) {
				return nil, false
			}
		}
	}
	have = map[string]map[string]string{}
	for _, m := range b.set.maps() {
		els, err := c.GetSetElements(m)
		if err != nil {
			return nil, false
		}
		have[m.Name] = map[string]string{}
		for _, e := range els {
			have[m.Name][string(e.Key)] = string(e.Val)
		}
	}
	return have, true
}

func (b *nftBackend) comment(i int) string {
	return fmt.Sprintf("nodeagent %d %s", i, b.set.fingerprint())
}

// rebuild replaces the whole table in one transaction: no packet sees it half.
func (b *nftBackend) rebuild(c *nftables.Conn) error {
	t := b.set.table()
	c.AddTable(t)
	c.DelTable(t)
	c.AddTable(t)
	for _, m := range b.set.maps() {
		if err := c.AddSet(m, nil); err != nil {
			return fmt.Errorf("add map %s: %w", m.Name, err)
		}
	}
	for _, ch := range b.set.chains() {
		c.AddChain(ch)
	}
	at := map[string]int{}
	for _, r := range b.set.rules() {
		c.AddRule(&nftables.Rule{
			Table: t, Chain: &nftables.Chain{Name: r.chain, Table: t}, Exprs: r.exprs,
			UserData: userdata.AppendString(nil, userdata.TypeComment, b.comment(at[r.chain])),
		})
		at[r.chain]++
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("make table %s: %w", b.set.name, err)
	}
	return nil
}
