package iptables

import (
	"context"
	"hash/maphash"
	"io"
	"maps"
	"sync"
	"time"
)

// left is what we left in the legacy tables, by which the changes of others are
// known. To read a table back after each change of ours would cost a fifth of the
// change. So only the kernel's counts of rules are asked then, and it is noted which
// chains we wrote: when the table is read the next time, those may differ and no
// others may. Where somebody else had the lock after us, it is read at once, and the
// chains that we wrote are compared with what we wrote.
//
// Backend.send and Watch use it at the same time.
type left struct {
	seed maphash.Seed
	ours func(chain string) bool
	own  func(pid int) bool // one of our programs

	mu      sync.Mutex
	marks   map[key]mark // nil if nobody watches
	wrote   map[key]chains
	lock    *lockNews // nil: nobody tells of it
	writing int
	writes  int  // that ended
	missed  bool // somebody changed our rules while we did
	stirred bool // somebody else had the lock
	doubt   bool // what we wrote may be another by now
}

// chains are some that we wrote since the table was read, as text; n of a chain that
// we removed is gone.
type chains map[string]sum

const gone = -1

// maxWrote is how many are noted before the table is read.
const maxWrote = 512

// key is a table of a family.
type key struct {
	v6    bool
	table string
}

func newLeft(ours func(string) bool, own func(int) bool) *left {
	return &left{seed: maphash.MakeSeed(), ours: ours, own: own}
}

// How often the legacy tables are looked at: at the counts; and in looks at these at
// the rules, which is for who replaced one by another of its length, unseen.
const (
	countEvery = 500 * time.Millisecond
	readSoon   = 4
	readLate   = 20
	readShare  = 100 // a look at the rules may take so much of the time until the next
)

// untilRead is after how many looks at the counts the rules are to be read again, which
// took so long, where nobody tells who had the lock.
func untilRead(took time.Duration) int {
	return min(max(int(readShare*took/countEvery), readSoon), readLate)
}

// watch calls wake when somebody else changed our rules, until ctx ends.
func (l *left) watch(ctx context.Context, tools []tool, wake func()) error {
	l.open(tools)
	defer l.forget()
	wake() // what changed before
	next := time.NewTimer(countEvery)
	defer next.Stop()
	for left := readSoon; ; left-- {
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
		}
		begun, all := time.Now(), left <= 1
		told := l.follow()
		if l.moved(tools, all) || l.changedAfter(ctx, tools) {
			wake()
		}
		took := time.Since(begun)
		if all && told {
			left = readLate + 1
		} else if all {
			left = untilRead(took) + 1
		}
		next.Reset(max(countEvery, took)) // whoever takes the lock all day costs half a core at most
	}
}

// open takes what is there for what shall be.
func (l *left) open(tools []tool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marks, l.wrote = map[key]mark{}, map[key]chains{}
	l.lock, _ = listenToLock() // without it tables are read after each change
	for _, x := range tools {
		for _, table := range tables {
			l.marks[key{x.f.v6, table}] = l.markOf(x.f, table)
		}
	}
}

// follow listens to the lock's file that is there now, if it is another one. It tells
// whether anybody listens.
func (l *left) follow() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lock != nil && l.lock.follow() != nil {
		l.lock.close()
		l.lock = nil
	}
	return l.lock != nil
}

func (l *left) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lock.close()
	l.marks, l.wrote, l.lock = nil, nil, nil
}

// listen asks whether somebody else had the lock.
func (l *left) listen() bool {
	some := l.lock.others(l.own)
	l.stirred = l.stirred || some
	return some
}

// begin is before a change of ours.
func (l *left) begin(x tool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doubt = (l.listen() && len(l.wrote) > 0) || l.doubt
	l.missed = l.differs(x, false) || l.missed
	l.writing++
}

// end is after it.
func (l *left) end(x tool, ps []patch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writing--
	l.writes++
	l.doubt = l.listen() || l.doubt
	for _, p := range ps {
		if l.marks != nil && !p.isEmpty() {
			l.note(x, p)
		}
	}
}

// note takes a patch for ours.
func (l *left) note(x tool, p patch) {
	k := key{x.f.v6, p.table}
	if l.wrote[k] == nil {
		l.wrote[k] = chains{}
	}
	l.wrote[k].add(l.seed, p)
	m := l.marks[k]
	c, err := countsOf(x.f, p.table)
	if l.lock == nil || err != nil || len(l.wrote[k]) > maxWrote {
		l.missed = l.read(x, p.table) || l.missed
		return
	}
	m.counts = c
	l.marks[k] = m
}

func (cs chains) add(seed maphash.Seed, p patch) {
	for _, c := range p.write {
		cs[c.name] = sumOf(seed, c.name, c.rules)
	}
	for _, name := range p.empty {
		cs[name] = sum{}
	}
	for _, name := range p.drop {
		cs[name] = sum{n: gone}
	}
	if len(p.undo)+len(p.insert) > 0 {
		cs[""] = sum{} // rules of the kernel's chains
	}
}

// moved tells whether our rules are others than those that we left.
func (l *left) moved(tools []tool, all bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writing > 0 {
		return false // what that leaves is noted when it ends
	}
	out := l.missed
	l.missed = false
	if l.listen() {
		l.doubt = true
	}
	if l.doubt && len(l.wrote) > 0 {
		return out // changedAfter looks
	}
	all = all || l.stirred
	l.stirred, l.doubt = false, false
	for _, x := range tools {
		out = l.differs(x, all) || out
	}
	return out
}

// differs looks at the counts, and where these differ, or if all, at the rules.
func (l *left) differs(x tool, all bool) bool {
	out := false
	for _, table := range tables {
		was, watched := l.marks[key{x.f.v6, table}]
		if !watched {
			continue
		}
		now, err := countsOf(x.f, table)
		same := err == nil && now == was.counts
		if same && !all {
			continue
		}
		l.doubt = l.doubt || (!same && len(l.wrote[key{x.f.v6, table}]) > 0)
		out = l.read(x, table) || out
	}
	return out
}

// read tells whether others changed chains, but for those that we wrote. In doubt
// changedAfter has a look at these.
func (l *left) read(x tool, table string) bool {
	k := key{x.f.v6, table}
	was, now := l.marks[k], l.markOf(x.f, table)
	wrote := map[uint64]bool{}
	for name := range l.wrote[k] {
		wrote[maphash.String(l.seed, name)] = true
	}
	l.marks[k] = now
	if !l.doubt {
		delete(l.wrote, k)
	}
	return was.others(now, wrote)
}

// changedAfter tells, where somebody else may have written after us, whether our
// chains are what we left: those that we wrote by their text.
func (l *left) changedAfter(ctx context.Context, tools []tool) bool {
	l.mu.Lock()
	if !l.doubt || l.writing > 0 {
		l.mu.Unlock()
		return false
	}
	writes, wrote := l.writes, map[key]chains{}
	for k, cs := range l.wrote {
		wrote[k] = maps.Clone(cs)
	}
	l.mu.Unlock()
	same := true
	for _, x := range tools {
		for _, table := range tables {
			same = same && l.asWritten(ctx, x, table, wrote[key{x.f.v6, table}])
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writes != writes || l.writing > 0 {
		return false // at the next look
	}
	again := l.listen()
	l.stirred, l.doubt = again, again
	out := !same
	for _, x := range tools {
		out = l.differs(x, true) || out
	}
	return out
}

// asWritten compares some chains of a table with what we wrote there.
func (l *left) asWritten(ctx context.Context, x tool, table string, wrote chains) bool {
	if len(wrote) == 0 {
		return true
	}
	if _, jumps := wrote[""]; jumps {
		return false // only a look at everything knows
	}
	var s seen
	err := x.read(ctx, table, func(r io.Reader) (err error) {
		s, err = parse(r, l.seed, func(name string) bool { _, ok := wrote[name]; return ok })
		return err
	})
	if err != nil {
		return false
	}
	for name, want := range wrote {
		is, there := s.chains[name]
		if !there {
			is.n = gone
		}
		if is != want {
			return false
		}
	}
	return true
}
