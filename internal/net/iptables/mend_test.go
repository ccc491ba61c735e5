package iptables

import (
	"maps"
	"math/rand"
	"slices"
	"testing"

	"nodeagent/internal/net"
)

// TestMendOnPaper: chains in which somebody wrote, written again, are what they were;
// one that he made goes.
func TestMendOnPaper(t *testing.T) {
	for seed := range int64(300) {
		dice := rand.New(rand.NewSource(seed))
		m := net.NewModel(thisNode)
		for range 30 {
			change(dice, m)
		}
		m.Take()
		p := onPaper(t, Config{})
		p.sync(t, NFT, m.Table())
		for i, l := range p.layouts {
			k := p.kernels[i]
			want := k.String()
			in := map[spot]bool{}
			for _, table := range tables {
				for _, name := range slices.Sorted(maps.Keys(k[table])) {
					if !p.ours(name) || dice.Intn(3) > 0 {
						continue
					}
					in[spot{i == 1, table, name}] = true
					if k[table][name] = nil; dice.Intn(2) == 0 {
						k[table][name] = []string{"-j RETURN"}
					}
				}
			}
			k[nat]["NODEAGENT-SVC-STRAY"] = []string{"-j ACCEPT"}
			in[spot{i == 1, nat, "NODEAGENT-SVC-STRAY"}] = true
			in[spot{i == 1, nat, "OUTPUT"}] = true
			var r net.Report
			ps, kernels := l.again(m.Table(), in, &r)
			p.put(t, i, NFT, ps)
			if now := k.String(); now != want || r.Chains == 0 || !kernels[nat] || kernels[filter] {
				t.Fatalf("seed %d: %+v, jumps %v: there is\n%s\nwhere there was\n%s", seed, r, kernels, now, want)
			}
		}
	}
}

// TestOthers: what differs is somebody else's doing, but for what we wrote.
func TestOthers(t *testing.T) {
	was := mark{chains: []chainSum{{1, 10}, {3, 30}, {5, 50}}}
	for _, x := range []struct {
		what  string
		now   []chainSum
		wrote []uint64
		want  bool
	}{
		{"nothing", []chainSum{{1, 10}, {3, 30}, {5, 50}}, nil, false},
		{"one is another", []chainSum{{1, 10}, {3, 31}, {5, 50}}, nil, true},
		{"and we wrote it", []chainSum{{1, 10}, {3, 31}, {5, 50}}, []uint64{3}, false},
		{"one is new", []chainSum{{1, 10}, {2, 20}, {3, 30}, {5, 50}}, nil, true},
		{"and we made it", []chainSum{{1, 10}, {2, 20}, {3, 30}, {5, 50}}, []uint64{2}, false},
		{"the last is gone", []chainSum{{1, 10}, {3, 30}}, nil, true},
		{"and we removed it", []chainSum{{1, 10}, {3, 30}}, []uint64{5}, false},
		{"ours, and one more", []chainSum{{1, 11}, {3, 31}, {5, 50}}, []uint64{1}, true},
		{"all are gone", nil, []uint64{1, 3}, true},
		{"and we removed them", nil, []uint64{1, 3, 5}, false},
	} {
		wrote := map[uint64]bool{}
		for _, name := range x.wrote {
			wrote[name] = true
		}
		if got := was.others(mark{chains: x.now}, wrote); got != x.want {
			t.Errorf("%s: %v", x.what, got)
		}
	}
}
