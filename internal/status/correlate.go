package status

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/lru"
)

// The numbers by which kubelet keeps events few (client-go's tools/record).
const (
	remembered     = 4096             // what is known of so many families, events and objects
	maxSimilar     = 10               // events of a family that are told one by one,
	similarFor     = 10 * time.Minute // until so long nothing came of it
	combinedPrefix = "(combined from similar events): "
)

// spamPace is how many events there may be about one object.
var spamPace = pace{burst: 25, every: 5 * time.Minute}

// correlator finds which events are one. It is pure but for its memory and belongs
// to one goroutine. The rules are those of client-go's EventCorrelator, which would
// bring OpenAPI along.
type correlator struct {
	families, events, objects *lru.Cache
}

// family is events that differ in their message alone.
type family struct {
	messages map[string]bool
	last     time.Time
}

// sighting is an event that was told.
type sighting struct {
	name  string
	first time.Time
	count int32
}

func newCorrelator() *correlator {
	return &correlator{families: lru.New(remembered), events: lru.New(remembered), objects: lru.New(remembered)}
}

// about is what an event is about; kin, with what it says of it.
type about struct{ kind, namespace, name, uid, field string }

type kin struct {
	about
	typ, reason, message string
}

// correlate makes of an observation the event to tell; false: there were too many
// about this object. An event with a count above 1 was told before, under its name.
func (c *correlator) correlate(o observation) (*corev1.Event, bool) {
	e := o.event
	ref := &e.InvolvedObject
	k := kin{about{ref.Kind, ref.Namespace, ref.Name, string(ref.UID), ref.FieldPath}, e.Type, e.Reason, ""}
	if c.combine(k, e.Message, o.at) {
		k.field = ""
		if !strings.HasPrefix(e.Message, combinedPrefix) {
			e.Message = combinedPrefix + e.Message
		}
	} else {
		k.message = e.Message
	}
	s := &sighting{name: e.Name, first: o.at}
	if known, ok := c.events.Get(k); ok {
		s = known.(*sighting)
	} else {
		c.events.Add(k, s)
	}
	s.count++
	e.Name, e.Count, e.FirstTimestamp.Time = s.name, s.count, s.first
	return e, c.allowed(k.about, o.at)
}

// combine tells whether the event is told as one with others of its family.
func (c *correlator) combine(k kin, message string, at time.Time) bool {
	k.field = "" // as client-go: of whichever container
	known, ok := c.families.Get(k)
	if !ok {
		known = &family{messages: map[string]bool{}}
		c.families.Add(k, known)
	}
	f := known.(*family)
	if at.Sub(f.last) > similarFor {
		clear(f.messages)
	}
	f.last = at
	switch {
	case f.messages[message]:
		return false // told by itself before
	case len(f.messages) < maxSimilar-1:
		f.messages[message] = true
		return false
	}
	return true
}

func (c *correlator) allowed(a about, at time.Time) bool {
	a.field = ""
	known, ok := c.objects.Get(a)
	if !ok {
		known = &bucket{}
		c.objects.Add(a, known)
	}
	b := known.(*bucket)
	if b.when(spamPace, at).After(at) {
		return false
	}
	b.take(spamPace, at)
	return true
}
