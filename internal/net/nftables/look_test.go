package nftables

import (
	"maps"
	"testing"

	"nodeagent/internal/net/hosttest"
	. "nodeagent/internal/net/nettest"
	"nodeagent/internal/test/need"
)

// TestLooks: how often all is read to know what is missing: once where the kernel
// counts, else as long as there is something new.
func TestLooks(t *testing.T) {
	services, endpoints := Many(10, 3)
	m := Filled(thisNode, services, endpoints)
	b, err := New(Config{})
	must(t, err)
	all := b.want(m.Table(), nil)
	without := func(ips ...byte) elements {
		out := maps.Clone(all)
		for _, last := range ips {
			delete(out, slot{set: "cluster-ips4", key: string([]byte{10, 96, 0, last})})
		}
		return out
	}
	sets := func(els elements, counts bool) map[string]held {
		out := map[string]held{}
		for name, set := range b.sets {
			out[name] = held{dynamic: set.Dynamic, count: -1}
			if n := 0; counts {
				for s := range els {
					if s.set == name {
						n++
					}
				}
				out[name] = held{dynamic: set.Dynamic, count: n}
			}
		}
		return out
	}
	few, fewer := without(1), without(1, 2)
	for _, c := range []struct {
		name   string
		really elements
		counts bool
		seen   []elements
		looks  int
	}{
		{"nothing is missing", all, false, []elements{all}, 1},
		{"one is, and the kernel counts", few, true, []elements{few}, 1},
		{"one is, and it does not", few, false, []elements{few, few}, 2},
		{"one is, and one was not seen at first", few, true, []elements{fewer, few}, 2},
		{"the same, where it does not count", few, false, []elements{fewer, few, few}, 3},
		{"all are there, and two were not seen", all, true, []elements{fewer, few, all}, 3},
	} {
		looks := 0
		have, _, err := b.compareWith(func() (state, error) {
			looks++
			if looks > len(c.seen) {
				t.Fatalf("%s: looked %d times", c.name, looks)
			}
			return state{whole: true, sets: sets(c.really, c.counts), elements: maps.Clone(c.seen[looks-1])}, nil
		}, m.Table())
		must(t, err)
		if looks != c.looks || !maps.Equal(have.elements, c.really) {
			t.Errorf("%s: %d looks found %d of %d elements", c.name, looks, len(have.elements), len(c.really))
		}
	}
}

// TestLooksAtMany: by this kernel, with many services, one that lost an element is
// mended after one look where the kernel counts, and after two where it does not.
func TestLooksAtMany(t *testing.T) {
	need.Have(t, need.Root)
	services, endpoints := Many(3000, 5)
	m := Filled(thisNode, services, endpoints)
	b := backend(t, Config{})
	_, err := b.Sync(hosttest.Ctx(t), m.Table())
	must(t, err)
	nft(t, "delete element inet nodeagent-services cluster-ips4 { 10.96.0.1 }")
	c, err := b.open(hosttest.Ctx(t))
	must(t, err)
	looks, counts := 0, false
	have, want, err := b.compareWith(func() (state, error) {
		looks++
		s, err := b.read(c)
		counts = s.sets["cluster-ips4"].count >= 0
		return s, err
	}, m.Table())
	must(t, err)
	most := 2
	if counts {
		most = 1
	}
	if gone, lost := differ(have.elements, want); looks > most || len(gone) != 0 || len(lost) != 1 {
		t.Errorf("after %d looks %d elements are missing and %d too many; the kernel counts: %v", looks, len(lost), len(gone), counts)
	}
	if r, err := b.Sync(hosttest.Ctx(t), m.Table()); err != nil || r.Elements != 1 {
		t.Errorf("it did %+v, %v", r, err)
	}
}
