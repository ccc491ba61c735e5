package main

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"

	"nodeagent/internal/source"
)

// latestSnapshot keeps the last snapshot of the manifests for the command line
// and says once, in the log, what is wrong with them.
type latestSnapshot struct {
	say   string // what is logged of a problem; "": that a manifest cannot be used
	mu    sync.Mutex
	snap  source.Snapshot
	ready chan struct{}
}

func (l *latestSnapshot) put(s source.Snapshot, log *slog.Logger) {
	first := l.first()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range s.Problems {
		same := func(q source.Problem) bool { return q.File == p.File && q.Message == p.Message }
		if !slices.ContainsFunc(l.snap.Problems, same) {
			log.Warn(cmp.Or(l.say, "cannot use a manifest"), "file", p.File, "line", p.Line, "pod", p.Pod, "why", p.Message)
		}
	}
	if !l.snap.Synced && s.Synced {
		close(first)
	}
	l.snap = s
}

func (l *latestSnapshot) problems() []source.Problem {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]source.Problem{}, l.snap.Problems...)
}

// first is closed when the manifests were read for the first time.
func (l *latestSnapshot) first() chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ready == nil {
		l.ready = make(chan struct{})
	}
	return l.ready
}
