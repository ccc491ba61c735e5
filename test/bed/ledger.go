package bed

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
)

// Ledger is a History over all boots of a node whose power is cut: what a daemon
// had told is true for the next one. Besides what a History knows, a pod that
// never restarts has run once, and within a boot no two pods that run have one
// address. Its methods may be called from any goroutine.
type Ledger struct {
	mu      sync.Mutex
	history *History
	dark    bool
	once    map[string]string // pods that run once: UID to container
	addrs   map[string]string // address to UID
	ended   map[string]bool
	bad     []string
}

// NewLedger returns one that has seen nothing.
func NewLedger() *Ledger {
	return &Ledger{history: NewHistory(), once: map[string]string{}, addrs: map[string]string{}, ended: map[string]bool{}}
}

// Dark says that the power is about to go: what is seen from now on counts as
// not told.
func (l *Ledger) Dark() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dark = true
}

// Boot says that the node is up again, where every address is free.
func (l *Ledger) Boot() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dark = false
	clear(l.addrs)
}

// See takes one change.
func (l *Ledger) See(c Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dark {
		return
	}
	l.history.See(c)
	l.address(c)
	if Ended(c.Pod) {
		l.ended[string(c.Pod.UID)] = true
	}
	if c.Pod.Spec.RestartPolicy == corev1.RestartPolicyNever {
		l.runs(c.Pod)
	}
}

func (l *Ledger) runs(p *corev1.Pod) {
	for _, s := range p.Status.ContainerStatuses {
		if s.ContainerID == "" || s.State.Waiting != nil {
			continue
		}
		key := string(p.UID) + "/" + s.Name
		if was := l.once[key]; was != "" && was != s.ContainerID {
			l.report("pod %s must run once: it ran as %s and then as %s", p.Name, was, s.ContainerID)
		}
		l.once[key] = s.ContainerID
	}
}

func (l *Ledger) address(c Change) {
	uid, ip := string(c.Pod.UID), c.Pod.Status.PodIP
	maps.DeleteFunc(l.addrs, func(_, owner string) bool { return owner == uid })
	if c.Gone || Ended(c.Pod) || ip == "" || c.Pod.Spec.HostNetwork {
		return
	}
	if other := l.addrs[ip]; other != "" {
		l.report("pod %s has address %s, and so has %s", uid, ip, other)
	}
	l.addrs[ip] = uid
}

func (l *Ledger) report(format string, args ...any) {
	l.bad = append(l.bad, fmt.Sprintf(format, args...))
}

// Illegal returns what must not have been seen.
func (l *Ledger) Illegal() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Concat(l.history.Illegal(), l.bad)
}

// Seen says how much was: pods that were seen to end.
func (l *Ledger) Seen() (ended int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.ended)
}

// Ended tells a pod that has run to its end.
func Ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}
