package volume

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Reading is what the volumes of a pod took when they were last measured.
type Reading struct {
	At      time.Time `json:"at"`
	Volumes []Usage   `json:"volumes"`
	Missed  string    `json:"missed,omitempty"` // why some are missing
}

const (
	// countTime bounds the count of one pod's volumes; what is counted by then is
	// told as a part.
	countTime = 10 * time.Second
	// countsAtOnce is how many pods are counted at a time. One that hangs in the
	// kernel no longer counts after countTime.
	countsAtOnce = 2
	// holdTime is how long the removal of volumes waits for a count of them to end.
	// It ends at once, unless it hangs on what a container mounted there.
	holdTime = 100 * time.Millisecond
)

// notCounted is said of volumes that nothing is known of yet.
const notCounted = "they are still being counted; ask again"

// meter knows what the volumes of pods take. It measures when somebody asks, and
// each pod at most once a period, however many ask: at rest it costs nothing.
// Each count is a goroutine of its own, of which a pod has one at most, and takes
// no lock that a pod needs.
type meter struct {
	measure func(context.Context, types.UID) ([]Usage, error)
	period  time.Duration
	slots   chan struct{}

	mu   sync.Mutex
	pods map[types.UID]*metered
}

type metered struct {
	last   Reading
	at     time.Time // of last, by the monotonic clock; zero: none yet
	cancel context.CancelFunc
	ended  chan struct{} // closed when the count that is under way ends; nil: none is
	void   bool          // what that count finds is of volumes that have been removed since
	held   bool          // its volumes are being removed
}

func newMeter(period time.Duration, measure func(context.Context, types.UID) ([]Usage, error)) *meter {
	return &meter{measure: measure, period: period, slots: make(chan struct{}, countsAtOnce), pods: map[types.UID]*metered{}}
}

// Usage tells what the volumes of pods took when they were last measured, which is
// at most a StatsPeriod ago unless a count hangs. It waits for counts no longer than
// ctx, and says so of a pod that was never measured yet. uids are all pods of the
// node: what is known of others is forgotten. It holds up no pod.
func (v *Volumes) Usage(ctx context.Context, uids []types.UID) map[types.UID]Reading {
	if v.cfg.StatsPeriod < 0 {
		return map[types.UID]Reading{}
	}
	return v.meter.read(ctx, uids)
}

func (m *meter) read(ctx context.Context, uids []types.UID) map[types.UID]Reading {
	for _, ended := range m.begin(ctx, uids) {
		select {
		case <-ended:
		case <-ctx.Done():
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[types.UID]Reading{}
	for _, uid := range uids {
		switch p := m.pods[uid]; {
		case p == nil:
		case !p.at.IsZero():
			all[uid] = p.last
		case p.ended != nil && !p.held:
			all[uid] = Reading{Volumes: []Usage{}, Missed: notCounted}
		}
	}
	return all
}

// begin begins to count what was not counted within a period, and returns what is
// closed when the counts end. They do not end with ctx.
func (m *meter) begin(ctx context.Context, uids []types.UID) (counts []chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	known := make(map[types.UID]bool, len(uids))
	for _, uid := range uids {
		known[uid] = true
		p := m.pods[uid]
		if p == nil {
			p = &metered{}
			m.pods[uid] = p
		}
		if p.ended == nil && !p.held && (p.at.IsZero() || time.Since(p.at) >= m.period) {
			bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), countTime)
			p.cancel, p.ended = cancel, make(chan struct{})
			go m.count(bounded, uid, p)
		}
		if p.ended != nil {
			counts = append(counts, p.ended)
		}
	}
	for uid, p := range m.pods {
		if !known[uid] && p.ended == nil && !p.held {
			delete(m.pods, uid)
		}
	}
	return counts
}

// count measures the volumes of one pod.
func (m *meter) count(ctx context.Context, uid types.UID, p *metered) {
	defer p.cancel()
	var got Reading
	var at time.Time
	select {
	case m.slots <- struct{}{}:
		release := sync.OnceFunc(func() { <-m.slots })
		stop := context.AfterFunc(ctx, release) // also while it hangs
		at = time.Now()
		got.At = at.UTC()
		var err error
		if got.Volumes, err = m.measure(ctx, uid); err != nil {
			got.Missed = err.Error()
		}
		if stop() {
			release()
		}
	case <-ctx.Done(): // others hang
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !at.IsZero() && !p.void {
		p.last, p.at = got, at
	}
	close(p.ended)
	p.ended, p.void = nil, false
}

// hold ends the count of a pod that is under way, and lets none begin until release
// is called: an open file would keep a mount from going.
func (m *meter) hold(uid types.UID) (release func()) {
	m.mu.Lock()
	p := m.pods[uid]
	if p == nil {
		p = &metered{}
		m.pods[uid] = p
	}
	p.held, p.last, p.at = true, Reading{}, time.Time{}
	ended := p.ended
	if ended != nil {
		p.void = true
		p.cancel()
	}
	m.mu.Unlock()
	if ended != nil {
		limit := time.NewTimer(holdTime)
		defer limit.Stop()
		select {
		case <-ended:
		case <-limit.C:
		}
	}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		p.held = false
		if p.ended == nil {
			delete(m.pods, uid)
		}
	}
}
