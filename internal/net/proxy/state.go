package proxy

import (
	"sync"
	"time"

	"nodeagent/internal/net"
)

// late is how long a change may wait for its rules before the node is called ill:
// kube-proxy's two sync periods.
const late = time.Minute

// state is what others are told of the loop. Its methods may be called from any
// goroutine.
type state struct {
	mode     string
	settings any
	host     string // the API server's

	mu       sync.Mutex
	since    time.Time // of the oldest change that waits; zero: none does
	updated  time.Time // when rules were written last
	able     bool      // the Node is neither deleted nor about to be
	troubles [kinds]string
	failure  string // why rules are not what they should be
	figures  figures
}

func newState(mode string, settings any) *state {
	return &state{mode: mode, settings: settings, figures: newFigures()}
}

// queued notes that something waits.
func (s *state) queued(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.figures.queued = now
	if s.since.IsZero() {
		s.since = now
	}
}

func (s *state) changed(k kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.figures.changes[k]++
	s.figures.pending[k]++
}

func (s *state) foreign() {
	s.mu.Lock()
	s.figures.foreign++
	s.mu.Unlock()
	s.queued(time.Now())
}

// failed notes that rules are not what they should be, after all was compared or
// after changes were written.
func (s *state) failed(err error, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = err.Error()
	s.figures.failures++
	if !full {
		s.figures.partFailures++
	}
	if s.since.IsZero() {
		s.since = time.Now()
	}
}

// level notes that what changed asked for no other rules.
func (s *state) level() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since, s.failure = time.Time{}, ""
	s.figures.pending = [kinds]int{}
}

// wrote notes that the kernel holds the table.
func (s *state) wrote(begun, now time.Time, full bool, t *net.Table, triggers []time.Time) {
	s.level()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.updated = now
	s.figures.wrote(now.Sub(begun), full)
	for _, at := range triggers {
		s.figures.programming.add(now.Sub(at))
	}
	s.figures.entries = len(t.Entries)
}

// counted takes what a Backend counts. Another Backend begins anew.
func (s *state) counted(c net.Counts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.figures.counts = c
}

// diff takes what changes in the table.
func (s *state) diff(d *net.Diff) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.figures.count(d)
}

func (s *state) forgot(n int, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.figures.forgotten += n
	s.figures.forgetting.add(took)
}

// asked notes a request to the API server. Codes have three digits, so that there are
// few counts whoever answers.
func (s *state) asked(method, code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.figures.asked[[2]string{method, code}]++
}

func (s *state) eligible(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.able = yes
}

// trouble notes what is wrong with the API server; new tells that it is.
func (s *state) trouble(k kind, why string) (isNew bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	isNew, s.troubles[k] = s.troubles[k] != why, why
	return isNew
}

func (s *state) well(k kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.troubles[k] = ""
}

// healthy tells whether no change has waited for its rules for too long.
func (s *state) healthy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since.IsZero() || time.Since(s.since) < late
}

// View is what people are shown.
type View struct {
	Mode     string    `json:"mode"`
	Entries  int       `json:"entries"` // ports of services, of each family
	Updated  time.Time `json:"updated,omitzero"`
	Waiting  time.Time `json:"waiting,omitzero"` // since when a change waits for its rules
	Problems []string  `json:"problems,omitempty"`
}

// Show says how it stands with the rules.
func (p *Proxy) Show() View {
	s := p.state
	s.mu.Lock()
	defer s.mu.Unlock()
	v := View{Mode: s.mode, Entries: s.figures.entries, Updated: s.updated, Waiting: s.since}
	for _, why := range append(s.troubles[:], s.failure) {
		if why != "" {
			v.Problems = append(v.Problems, why)
		}
	}
	return v
}
