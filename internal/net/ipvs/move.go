package ipvs

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"nodeagent/internal/net"
)

// move makes have into want: what closes addresses, and says who is masqueraded;
// the servers of marks, and the marks; the servers of addresses, and that they are
// served; their addresses. And the other way round. since is for how long endpoints
// get no connections any more.
func (b *Backend) move(have, want holding, since map[drain]time.Time) error {
	early, late, gone := b.differ(have.elements, want.elements)
	var owned []element // what says that a server is ours, where no address of the device does
	gone[served] = slices.DeleteFunc(gone[served], func(x element) bool {
		a := x.at.IP
		if vip := !b.plan.elsewhere(a) && (have.bound[a] || b.plan.uses[a] > 0); vip {
			return false
		}
		owned = append(owned, x)
		return true
	})
	steps := []func() error{
		func() error { return b.addElements(early[:], have.elements, want.elements) },
		func() error { return b.putServers(have, want, true) },
		func() error { return b.addElements(late[local:served], have.elements, want.elements) },
		func() error { return b.putServers(have, want, false) },
		func() error { return b.addElements(late[served:], have.elements, want.elements) },
		func() error { return b.bindAll(have, want) },
		func() error { return b.delElements(gone[served:], have.elements) },
		func() error { return b.retireAll(have, want, since) },
		func() error { return b.unbindAll(have, want, gone[:]) },
		func() error { return b.delElements(gone[:served], have.elements) },
		func() error { return b.delElements([][]element{b.ended(owned)}, have.elements) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// differ sorts what has to come and to go by sets. What is served at the node's own
// addresses is noted early: so it is ours, whenever we end.
func (b *Backend) differ(have, want map[element]uint32) (early, late, gone [setKinds][]element) {
	for x, m := range want {
		if is, ok := have[x]; ok && is == m {
			continue
		}
		if x.set < local || (x.set == served && b.plan.elsewhere(x.at.IP)) {
			early[x.set] = append(early[x.set], x)
		} else {
			late[x.set] = append(late[x.set], x)
		}
	}
	for x := range have {
		if _, ok := want[x]; !ok {
			gone[x.set] = append(gone[x.set], x)
		}
	}
	return early, late, gone
}

// addElements adds elements of want; those that have has change their mark.
func (b *Backend) addElements(sets [][]element, have, want map[element]uint32) error {
	return eachSet(sets, func(name string, els []element) error {
		b.writes += len(els)
		b.noteElements(els, have, want)
		return b.sets.write(setAdd, name, els, want)
	})
}

func (b *Backend) delElements(sets [][]element, have map[element]uint32) error {
	return eachSet(sets, func(name string, els []element) error {
		b.writes += len(els)
		b.noteElements(els, have, nil)
		return b.sets.write(setDel, name, els, nil)
	})
}

// noteElements keeps up how many elements there are and their sum.
func (b *Backend) noteElements(els []element, have, want map[element]uint32) {
	for _, x := range els {
		if mark, ok := have[x]; ok {
			b.counts[x.name()]--
			b.elements -= b.sumElement(x, mark)
		}
		if mark, ok := want[x]; ok {
			b.counts[x.name()]++
			b.elements += b.sumElement(x, mark)
		}
	}
}

// eachSet splits elements by the sets' names: the families have one each.
func eachSet(sets [][]element, f func(string, []element) error) error {
	for _, els := range sets {
		slices.SortFunc(els, element.compare)
		by := map[string][]element{}
		for _, x := range els {
			by[x.name()] = append(by[x.name()], x)
		}
		for _, name := range slices.Sorted(maps.Keys(by)) {
			if err := f(name, by[name]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *Backend) putServers(have, want holding, marked bool) error {
	for s, p := range want.servers {
		was, there := have.servers[s]
		if (s.mark != 0) != marked || there && was.scheduler == p.scheduler && was.keep == p.keep && maps.Equal(was.ends, p.ends) {
			continue
		}
		if err := b.putServer(s, was, there, p); err != nil {
			return err
		}
	}
	return nil
}

func (b *Backend) retireAll(have, want holding, since map[drain]time.Time) error {
	for s, p := range have.servers {
		w, stays := want.servers[s]
		some := !stays
		for a := range p.ends {
			_, ok := w.ends[a]
			some = some || !ok
		}
		if !some {
			continue
		}
		if stays {
			p = w // as it is now
		}
		if err := b.retire(s, p, w.ends, !stays, since); err != nil {
			return err
		}
	}
	return nil
}

func (b *Backend) bindAll(have, want holding) error {
	for a := range want.bound {
		if have.bound[a] {
			continue
		}
		if err := b.bindAddress(a); err != nil {
			return err
		}
	}
	return nil
}

// unbindAll takes addresses from the device, but for those of servers that still
// have connections: these stay, and what says that nobody else is served there.
func (b *Backend) unbindAll(have, want holding, gone [][]element) error {
	held := b.held()
	gone[ips] = slices.DeleteFunc(gone[ips], func(x element) bool { return held[x.at.IP] })
	for a := range have.bound {
		if want.bound[a] || held[a] || b.excluded(a) {
			continue
		}
		if err := b.unbindAddress(a); err != nil {
			return err
		}
	}
	return nil
}

// ended are those of servers that have no connections any more.
func (b *Backend) ended(els []element) []element {
	drains := map[net.Address]bool{}
	for d := range b.drains {
		drains[d.at] = true
	}
	return slices.DeleteFunc(els, func(x element) bool { return drains[x.at] })
}

// held are the addresses of servers that still have connections.
func (b *Backend) held() map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for d := range b.drains {
		if d.mark == 0 {
			out[d.at.IP] = true
		}
	}
	return out
}
