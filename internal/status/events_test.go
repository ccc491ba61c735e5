package status_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/status"
	"nodeagent/internal/status/statustest"
)

// telling runs do with a teller of events over an API server, in virtual time.
func telling(t *testing.T, do func(e *status.Events, api *statustest.Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		api := statustest.New()
		rest, stop, err := api.Serve()
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		e, err := status.NewEvents(status.EventsConfig{Sink: status.NewClient(rest), NodeName: "node", QPS: 50, Burst: 100, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- e.Run(ctx) }()
		do(e, api)
		cancel()
		<-done
	})
}

// calm is within what time it is told what went well with a pod, where nothing is of more
// haste.
const calm = 300 * time.Millisecond

// TestEvent: an event says what kubelet's says.
func TestEvent(t *testing.T) {
	telling(t, func(e *status.Events, api *statustest.Server) {
		web := bound("web", "1")
		web.Spec.InitContainers = []corev1.Container{{Name: "i"}}
		e.Pod(web, "c", corev1.EventTypeNormal, "Started", "Container started")
		e.Pod(web, "i", corev1.EventTypeNormal, "Started", "Container started")
		e.Pod(web, "", corev1.EventTypeWarning, "FailedMount", "no such thing")
		e.Node(corev1.EventTypeNormal, "Starting", "")
		(*status.Events)(nil).Pod(web, "", corev1.EventTypeNormal, "Started", "on a node without an API server")
		(*status.Events)(nil).Yield(time.Now().Add(time.Hour))
		time.Sleep(calm)
		seen := map[string]bool{}
		for _, ev := range api.Events() {
			o := ev.InvolvedObject
			seen[fmt.Sprintf("%s/%s %s %s/%s %s %s %s %s %d", ev.Namespace, ev.Type, ev.Reason, o.Kind, o.Name, o.UID, o.FieldPath, ev.Source.Component, ev.Source.Host, ev.Count)] = true
		}
		for _, want := range []string{
			"default/Normal Started Pod/web 1 spec.containers{c} kubelet node 1",
			"default/Normal Started Pod/web 1 spec.initContainers{i} kubelet node 1",
			"default/Warning FailedMount Pod/web 1  kubelet node 1",
			"default/Normal Starting Node/node node  kubelet node 1",
		} {
			if !seen[want] {
				t.Errorf("nobody was told %q", want)
			}
		}
		if len(seen) != 4 {
			t.Errorf("%d events: %v", len(seen), seen)
		}
	})
}

// TestFewEvents: the same event is counted, similar ones are told as one, and about one
// object there are not many.
func TestFewEvents(t *testing.T) {
	telling(t, func(e *status.Events, api *statustest.Server) {
		web := bound("web", "1")
		for range 20 {
			e.Pod(web, "c", corev1.EventTypeWarning, "BackOff", "Back-off restarting")
			time.Sleep(10 * time.Second)
		}
		events := api.Events()
		if len(events) != 1 || events[0].Count != 20 || !events[0].LastTimestamp.After(events[0].FirstTimestamp.Time) {
			t.Errorf("20 equal events are told as %+v", events)
		}
		other := bound("other", "2")
		for i := range 15 {
			e.Pod(other, "c", corev1.EventTypeWarning, "Unhealthy", fmt.Sprint("probe failed: ", i))
		}
		synctest.Wait()
		events = api.Events()[1:]
		combined := 0
		for _, ev := range events {
			if strings.HasPrefix(ev.Message, "(combined from similar events): ") {
				combined++
			}
		}
		if combined != 1 || len(events) != 10 {
			t.Errorf("15 similar events are told as %d, of which %d is combined; want 10 and 1", len(events), combined)
		}
		third := bound("third", "3")
		api.Asked()
		for i := range 100 {
			e.Pod(third, "", corev1.EventTypeNormal, fmt.Sprint("Reason", i), "")
		}
		time.Sleep(time.Minute)
		if n := len(api.Asked()); n != 25 {
			t.Errorf("%d requests about one object in a minute, want 25", n)
		}
		time.Sleep(11 * time.Minute)
		for i := range 100 {
			e.Pod(third, "", corev1.EventTypeNormal, fmt.Sprint("Later", i), "")
		}
		time.Sleep(calm)
		if n := len(api.Asked()); n != 2 {
			t.Errorf("%d requests 12 minutes later, want 2: one each 5 minutes", n)
		}
	})
}

// TestEventsYield: what went well with pods is told when nothing of more haste is under
// way, after 10 s at the latest, and at once where many wait. What went wrong, and what
// happens to the node, never waits.
func TestEventsYield(t *testing.T) {
	telling(t, func(e *status.Events, api *statustest.Server) {
		told := func(when string, want ...string) {
			t.Helper()
			synctest.Wait()
			var got []string
			for _, ev := range api.Events() {
				got = append(got, ev.Reason)
			}
			slices.Sort(got)
			if slices.Sort(want); !slices.Equal(got, want) {
				t.Errorf("%s there are %v, want %v", when, got, want)
			}
		}
		web, end := bound("web", "1"), time.Now().Add(5*time.Second)
		e.Yield(end)
		e.Pod(web, "c", corev1.EventTypeNormal, "Pulled", "")
		e.Pod(web, "c", corev1.EventTypeWarning, "Failed", "")
		e.Node(corev1.EventTypeNormal, "Starting", "")
		told("at once", "Failed", "Starting")
		time.Sleep(time.Until(end) - time.Millisecond)
		told("as long as pods come up", "Failed", "Starting")
		time.Sleep(time.Millisecond)
		told("when they are up", "Failed", "Starting", "Pulled")

		e.Pod(web, "c", corev1.EventTypeNormal, "Created", "")
		for range 95 {
			e.Yield(time.Now().Add(500 * time.Millisecond))
			time.Sleep(100 * time.Millisecond)
		}
		told("after 9.5 s in which pods come up", "Failed", "Starting", "Pulled")
		for range 10 {
			e.Yield(time.Now().Add(500 * time.Millisecond))
			time.Sleep(100 * time.Millisecond)
		}
		told("after 10.5 s", "Failed", "Starting", "Pulled", "Created")

		time.Sleep(time.Minute)
		e.Yield(time.Now().Add(5 * time.Second))
		for i := range 600 {
			e.Pod(bound(fmt.Sprint("p", i), fmt.Sprint(i)), "", corev1.EventTypeNormal, "Started", "")
		}
		synctest.Wait()
		if n := len(api.Events()) - 4; n != 100 {
			t.Errorf("of 600 events %d were told at once, want the 100 of a burst", n)
		}
		time.Sleep(time.Minute)
		if n := len(api.Events()) - 4; n != 600 {
			t.Errorf("of 600 events %d were told in the end", n)
		}
	})
}

// TestEventRate: there are at most 50 a second after the first 100.
func TestEventRate(t *testing.T) {
	telling(t, func(e *status.Events, api *statustest.Server) {
		for i := range 500 {
			e.Pod(bound(fmt.Sprint("p", i), fmt.Sprint(i)), "", corev1.EventTypeNormal, "Started", "")
		}
		time.Sleep(calm + 2*time.Second)
		if n := len(api.Asked()); n < 190 || n > 205 {
			t.Errorf("%d requests in 2 s, want 200", n)
		}
		time.Sleep(10 * time.Second)
		if n := len(api.Events()); n != 500 {
			t.Errorf("%d events told in the end, want 500", n)
		}
	})
}

// TestEventsAlone: without an API server nobody who reports is held up, and what waits is
// bounded; the newest are told when it is back, each once.
func TestEventsAlone(t *testing.T) {
	telling(t, func(e *status.Events, api *statustest.Server) {
		api.Faults(func(statustest.Request) statustest.Fault { return statustest.Fault{Refuse: true} })
		report := func(n int) {
			for i := range n {
				e.Pod(bound(fmt.Sprint("p", i), fmt.Sprint(i)), "", corev1.EventTypeWarning, "Failed", strings.Repeat("x", 100_000))
			}
		}
		report(10_000)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		report(10_000)
		runtime.GC()
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
			t.Errorf("%d bytes more wait after more events", grown)
		}
		time.Sleep(10 * time.Minute)
		if n := len(api.Asked()); n > 60 {
			t.Errorf("%d requests in ten minutes without an answer", n)
		}
		api.Faults(loseFirst("create"))
		time.Sleep(5 * time.Minute)
		events := api.Events()
		if len(events) < 1000 || len(events) > 1001 {
			t.Errorf("%d events told, want the newest 1000", len(events))
		}
		for _, ev := range events {
			if len(ev.Message) > 2<<10 || ev.Count != 1 {
				t.Fatalf("an event with a message of %d bytes was told, count %d", len(ev.Message), ev.Count)
			}
		}
	})
}

// TestEventRefused: an event that is not taken holds up no other. One that may be
// taken another time is told a few times more, and no more than that.
func TestEventRefused(t *testing.T) {
	for _, c := range []struct{ status, retryAfter, most int }{
		{403, 0, 1}, {422, 0, 1}, {500, 0, 4}, {429, 10, 4}, {503, 0, 4}, {401, 0, 4},
	} {
		telling(t, func(e *status.Events, api *statustest.Server) {
			api.Faults(func(r statustest.Request) (f statustest.Fault) {
				if r.Namespace == "closed" {
					f.Status, f.RetryAfter = c.status, c.retryAfter
				}
				return f
			})
			closed := bound("web", "1")
			closed.Namespace = "closed"
			e.Pod(closed, "", corev1.EventTypeNormal, "Started", "")
			e.Pod(bound("web", "2"), "", corev1.EventTypeNormal, "Started", "")
			time.Sleep(calm)
			if events := api.Events(); len(events) != 1 || events[0].InvolvedObject.UID != "2" {
				t.Errorf("%d: told: %+v", c.status, events)
			}
			time.Sleep(2 * time.Hour)
			if n := len(api.Requests()) - 1; n != c.most {
				t.Errorf("%d: it was told %d times, want %d", c.status, n, c.most)
			}
		})
	}
}

// TestEventTakenLater: what is refused for now is told when it is taken, and nobody
// tells it twice.
func TestEventTakenLater(t *testing.T) {
	telling(t, func(e *status.Events, api *statustest.Server) {
		api.Faults(func(statustest.Request) statustest.Fault { return statustest.Fault{Status: 429, RetryAfter: 7} })
		e.Pod(bound("web", "1"), "", corev1.EventTypeNormal, "Started", "")
		time.Sleep(13 * time.Second)
		if n := len(api.Requests()); n != 2 {
			t.Errorf("it was asked %d times within 13 s, though it asked for 7 s of peace each time", n)
		}
		api.Faults(func(statustest.Request) statustest.Fault { return statustest.Fault{} })
		time.Sleep(time.Minute)
		if events, n := len(api.Events()), len(api.Requests()); events != 1 || n != 3 {
			t.Errorf("%d events, %d requests", events, n)
		}
	})
}
