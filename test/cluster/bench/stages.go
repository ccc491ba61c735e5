package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"nodeagent/test/measure"
)

// life is one change in a pod's life, as all who can tell saw it.
type life struct {
	name     string
	begun    time.Time // the client asks
	asked    time.Time // and has the API server's answer
	seen     time.Time // a watcher of the API server sees the end of it
	events   []measure.Event
	told     sight     // what the agent itself said; zero where it cannot be asked
	requests []request // that the agent made about the pod
}

func (l life) took() float64 { return l.seen.Sub(l.begun).Seconds() }

// made tells whether the container's record was made in this change.
func (l life) made(id string) bool {
	return slices.ContainsFunc(l.events, func(e measure.Event) bool { return e.Topic == measure.RecordMade && e.ID == id })
}

// Changes whose way is told by stage.
const (
	goesUp = iota
	endsAlone
	goesDown
	lifeCount
)

// stage is a part of the way: from the moment of the one before until this one.
type stage struct {
	work string
	at   func(life) time.Time
	// beside: the next stage begins where this one did, since it does not wait for it.
	beside bool
}

// ways are the stages of each change, from what the first of them begins with.
func ways() [lifeCount]struct {
	title string
	begin func(life) time.Time
	steps []stage
} {
	return [lifeCount]struct {
		title string
		begin func(life) time.Time
		steps []stage
	}{
		goesUp: {"a pod is made", func(l life) time.Time { return l.begun }, []stage{
			{"API server: answers who asked", func(l life) time.Time { return l.asked }, true},
			{"API server: answers for a token", answered(askToken), true},
			{"API server: answers for the ConfigMap of its authorities", answered(askConfigMap), true},
			{"API server: has it; agent: hears of it, until the sandbox is on record", firstOf(measure.RecordMade), false},
			{"agent: volumes and sandbox, until the container is on record", lastOf(measure.RecordMade), false},
			{"containerd: task made (runc create)", lastOf(measure.TaskMade), false},
			{"containerd: task started, and telling of it", lastOf(measure.TaskStarted), false},
			{"agent: its own socket tells it", func(l life) time.Time { return l.told.ready }, true},
			{"agent: sees it, decides, and its status reaches the API server", received("patch pods/status"), false},
			{"API server: answers", answered("patch pods/status"), true},
			{"watcher: sees it Ready", func(l life) time.Time { return l.seen }, false},
		}},
		endsAlone: {"a container ends by itself", func(l life) time.Time { return endOf(l) }, []stage{
			{"shim and containerd: tell of it", firstOf(measure.TaskEnded), true},
			{"agent: its own socket tells it", func(l life) time.Time { return l.told.ended }, true},
			{"agent: sees it, decides, and its status reaches the API server", received("patch pods/status"), false},
			{"API server: answers", answered("patch pods/status"), true},
			{"watcher: sees the end", func(l life) time.Time { return l.seen }, false},
		}},
		goesDown: {"a pod is deleted", func(l life) time.Time { return l.begun }, []stage{
			{"API server: answers who asked", func(l life) time.Time { return l.asked }, true},
			{"API server: has it; agent: hears of it, until the process has ended", endOf, false},
			{"agent: clears up, until the last record is gone", lastOf(measure.RecordGone), false},
			{"agent: the final delete reaches the API server", received("delete pods"), false},
			{"API server: answers", answered("delete pods"), true},
			{"watcher: sees it gone", func(l life) time.Time { return l.seen }, false},
		}},
	}
}

func firstOf(topic string) func(life) time.Time {
	return func(l life) time.Time {
		for _, e := range l.events {
			if e.Topic == topic {
				return e.At
			}
		}
		return time.Time{}
	}
}

func lastOf(topic string) func(life) time.Time {
	return func(l life) (at time.Time) {
		for _, e := range l.events {
			if e.Topic == topic {
				at = e.At
			}
		}
		return at
	}
}

// endOf is when the pod's process ended: a sandbox of kubelet's ends after it.
func endOf(l life) time.Time {
	for _, e := range l.events {
		if e.Topic == measure.TaskEnded {
			return e.Ended
		}
	}
	return time.Time{}
}

// last is the request by which the watcher saw what it saw.
func (l life) last(kind string) (r request) {
	for _, q := range l.requests {
		if q.kind() == kind && q.ResponseStatus.Code < 300 && q.Received.Before(l.seen) && q.Received.After(l.begun) {
			r = q
		}
	}
	return r
}

func received(kind string) func(life) time.Time {
	return func(l life) time.Time { return l.last(kind).Received }
}

func answered(kind string) func(life) time.Time {
	return func(l life) time.Time { return l.last(kind).Answered }
}

// between are the seconds of each stage, of those lives that have both of its ends. A
// stage that nobody saw belongs to the next one.
func between(lives []life, begin func(life) time.Time, steps []stage) [][]float64 {
	all := make([][]float64, len(steps))
	for _, l := range lives {
		from := begin(l)
		for i, s := range steps {
			to := s.at(l)
			if to.IsZero() || from.IsZero() {
				continue
			}
			all[i] = append(all[i], to.Sub(from).Seconds())
			if !s.beside {
				from = to
			}
		}
	}
	return all
}

// printStages prints where the time goes, by medians, and what the API server was
// asked, so that what has become slower has an address.
func (b *bench) printStages(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for at, way := range ways() {
		fmt.Fprintf(w, "\nSTAGE: %s\tOURS\tKUBELET\n", strings.ToUpper(way.title))
		ours := between(b.sides[0].lives[at], way.begin, way.steps)
		peer := between(b.sides[1].lives[at], way.begin, way.steps)
		for i, s := range way.steps {
			work := s.work
			if s.beside {
				work = "  meanwhile " + work
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", work, median(ours[i]), median(peer[i]))
		}
	}
	fmt.Fprintf(w, "\nREQUESTS OF A TURN\tOURS\tKUBELET\n")
	kinds := map[string]bool{}
	for _, s := range b.sides {
		for k := range s.kinds {
			kinds[k] = true
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(kinds), func(x, y string) int {
		return cmp.Or(cmp.Compare(b.sides[1].kinds[y], b.sides[1].kinds[x]), cmp.Compare(x, y))
	}) {
		fmt.Fprintf(w, "%s\t%d\t%d\n", k, b.sides[0].kinds[k], b.sides[1].kinds[k])
	}
	w.Flush()
}

// median says nothing of what nobody saw.
func median(v []float64) string {
	if len(v) == 0 {
		return "-"
	}
	return measure.MS(measure.Median(v))
}
