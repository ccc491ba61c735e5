package source

import (
	"slices"
	"time"
)

// scan looks at the whole directory.
func (m *Manifests) scan(n *notifier) {
	m.enter(n)
	if m.here == (place{}) {
		return
	}
	names, complete, err := m.here.list()
	m.report("list", err)
	m.listed = complete
	slices.Sort(names)
	found := make(map[string]bool, len(names))
	for _, name := range names {
		found[name] = true
		m.look(name, signSeen)
	}
	if !complete {
		return
	}
	for name := range m.files {
		if !found[name] {
			m.look(name, signSeen)
		}
	}
}

// digest looks at what the kernel told about.
func (m *Manifests) digest(n *notifier) {
	got := n.take()
	_, whole := got.names[m.here.only] // a single file may be a directory now
	if got.place || got.all || m.here == (place{}) || whole && !m.stillHere() {
		m.scan(n)
	}
	links := false
	for name, s := range got.names {
		if m.here.only != "" && name != m.here.only {
			links = true
			continue
		}
		if m.here.only == "" && kindOf(name) == kindSilent {
			links = true
			continue
		}
		m.look(name, s)
	}
	if !links {
		return
	}
	// A hidden name may be what links lead through, as ..data of a ConfigMap.
	for name, f := range m.files {
		if f.link {
			m.look(name, signTouched)
		}
	}
}

// lookAgain looks at the files whose time has come.
func (m *Manifests) lookAgain(n *notifier) {
	now := time.Now()
	var due []string
	for name, at := range m.pending {
		if !at.After(now) {
			due = append(due, name)
		}
	}
	slices.Sort(due)
	for _, name := range due {
		if f := m.files[name]; f != nil && !f.confirmAt.IsZero() && !m.stillHere() {
			m.scan(n) // the directory went away with the file
			return
		}
		delete(m.pending, name)
		m.look(name, signSeen)
	}
}

// enter makes sure that the directory that is read is the one that the path
// means now, and that it is watched. Where there is none, all files stay as they
// were seen last.
func (m *Manifests) enter(n *notifier) {
	if m.here != (place{}) && m.stillHere() {
		return
	}
	p, err := m.findPlace()
	for range 3 {
		dir := p.dir
		if err != nil {
			dir = ""
		}
		m.report("watch", m.follow(n, dir))
		now, nowErr := m.findPlace() // it may have been replaced before it was watched
		if now == p && (nowErr == nil) == (err == nil) {
			break
		}
		p, err = now, nowErr
	}
	if err != nil {
		p = place{}
	}
	m.report("place", err)
	m.here = p
	for name := range m.pending {
		delete(m.pending, name)
	}
	for _, f := range m.files {
		f.goneAt, f.confirmAt = time.Time{}, time.Time{}
	}
}

func (m *Manifests) stillHere() bool {
	p, err := m.findPlace()
	return err == nil && p == m.here
}

// follow watches dir, or what leads to the path while there is no dir.
func (m *Manifests) follow(n *notifier, dir string) error {
	if n == nil {
		return nil
	}
	to := dir
	if to == "" {
		to = m.cfg.Path
	}
	parent, name := way(to)
	return n.watch(dir, parent, name)
}
