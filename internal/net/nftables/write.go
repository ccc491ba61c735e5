package nftables

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
)

// maxMessage bounds the elements of one message: the length of an attribute has
// 16 bits, and what is longer is lost without an error.
const maxMessage = 30_000

// item is one element to write.
type item struct {
	slot
	content
}

// writeElements queues op for elements, in messages that the kernel takes.
func (b *Backend) writeElements(items []item, op func(*nftables.Set, []nftables.SetElement) error) error {
	by := map[string][]nftables.SetElement{}
	for _, x := range items {
		by[x.set] = append(by[x.set], x.element())
	}
	for _, name := range setNames {
		for _, f := range families {
			set := b.sets[f.name(name)]
			for els := by[set.Name]; len(els) > 0; {
				n, size := 0, 0
				for n < len(els) && size < maxMessage {
					size += len(els[n].Key) + len(els[n].KeyEnd) + len(els[n].Val) + len(els[n].Comment) + 100
					n++
				}
				if err := op(set, els[:n]); err != nil {
					return fmt.Errorf("write %d elements of %s: %w", n, set.Name, err)
				}
				els = els[n:]
			}
		}
	}
	return nil
}

func (x item) element() nftables.SetElement {
	e := nftables.SetElement{Key: []byte(x.key), Val: []byte(x.value), Comment: x.comment}
	if x.end != "" {
		e.KeyEnd = []byte(x.end)
	}
	switch x.verdict {
	case "":
	case "drop":
		e.VerdictData = &expr.Verdict{Kind: expr.VerdictDrop}
	default:
		e.VerdictData = &expr.Verdict{Kind: expr.VerdictGoto, Chain: x.verdict}
	}
	return e
}

// differ lists what has to go and to come to get from one to the other. An
// element whose content changes is both: the kernel changes none in place.
func differ(have, want elements) (stale, missing []item) {
	for s, c := range have {
		if w, ok := want[s]; !ok || w != c {
			stale = append(stale, item{slot: s}) // to delete one its key is enough
		}
	}
	for s, c := range want {
		if h, ok := have[s]; !ok || h != c {
			missing = append(missing, item{s, c})
		}
	}
	return stale, missing
}

// writeChanges queues what makes have into want. What led to an endpoint goes
// before it, though the kernel makes all of it visible at once.
func (b *Backend) writeChanges(c *nftables.Conn, have, want elements) (int, error) {
	stale, missing := differ(have, want)
	if err := b.writeElements(stale, c.SetDeleteElements); err != nil {
		return 0, err
	}
	return len(stale) + len(missing), b.writeElements(missing, c.SetAddElements)
}

// writeFixed queues the whole table anew, without elements and picking chains.
func (b *Backend) writeFixed(c *nftables.Conn) error {
	c.AddTable(b.table)
	c.DelTable(b.table)
	c.AddTable(b.table)
	for _, n := range slices.Sorted(maps.Keys(b.sets)) {
		if err := c.AddSet(b.sets[n], nil); err != nil {
			return fmt.Errorf("add set %s: %w", n, err)
		}
	}
	accept := nftables.ChainPolicyAccept
	for _, ch := range b.fixed() {
		k := &nftables.Chain{Name: ch.name, Table: b.table}
		if ch.hook != nil {
			k.Hooknum, k.Type, k.Priority, k.Policy = ch.hook, ch.kind, nftables.ChainPriorityRef(nftables.ChainPriority(ch.prio)), &accept
		}
		c.AddChain(k)
		b.writeRules(c, ch.name, ch.rules)
	}
	return nil
}

func (b *Backend) writeRules(c *nftables.Conn, name string, rules []rule) {
	for _, r := range rules {
		k := &nftables.Rule{Table: b.table, Chain: &nftables.Chain{Name: name, Table: b.table}, Exprs: r.exprs}
		if r.text != "" {
			k.UserData = userdata.AppendString(nil, userdata.TypeComment, r.text)
		}
		c.AddRule(k)
	}
}

func (b *Backend) writePick(c *nftables.Conn, p pick) {
	c.AddChain(&nftables.Chain{Name: p.name(), Table: b.table})
	b.writeRules(c, p.name(), b.rulesOf(p))
}

// isPick tells the chains that pick endpoints from the fixed ones by name.
func isPick(name string) bool {
	for _, by := range pickNames {
		for _, base := range by {
			for _, f := range families {
				if strings.HasPrefix(name, f.name(base)+"-") {
					return true
				}
			}
		}
	}
	return false
}
